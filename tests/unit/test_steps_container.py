"""What the job scripts may use of NumPy: they run in containers that AWS builds, not in this project's environment."""

import ast
from pathlib import Path

import pytest

STEPS = sorted((Path(__file__).resolve().parents[2] / "steps").glob("*.py"))
# SageMaker's container for PyTorch 2.6 is built with "numpy<2", and steps/requirements.txt is content with 1.26. Names that NumPy has only
# since 2.0 (https://numpy.org/doc/stable/release/2.0.0-notes.html, "New functions"), 2.1 and 2.2; here NumPy 2 is installed, so nothing else
# would notice.
SINCE_NUMPY_2 = {
    *("acos", "acosh", "asin", "asinh", "astype", "atan", "atan2", "atanh"),
    *(
        "bitwise_count",
        "bitwise_invert",
        "bitwise_left_shift",
        "bitwise_right_shift",
        "bool",
        "concat",
        "cumulative_prod",
        "cumulative_sum",
    ),
    *("isdtype", "long", "matrix_transpose", "matvec", "permute_dims", "pow", "trapezoid", "ulong"),
    *("unique_all", "unique_counts", "unique_inverse", "unique_values", "unstack", "vecdot", "vecmat"),
}


@pytest.mark.parametrize("path", STEPS, ids=lambda path: path.name)
def test_the_scripts_use_nothing_that_came_with_numpy_2(path: Path) -> None:
    used = {
        node.attr
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "np"
    }
    assert used & SINCE_NUMPY_2 == set()
