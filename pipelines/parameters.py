"""The pipeline's runtime parameters: what an operator may change from one execution to the next without a new definition."""

from __future__ import annotations

from dataclasses import dataclass, fields

from sagemaker.core.workflow.parameters import Parameter, ParameterFloat, ParameterInteger, ParameterString

from pipelines.settings import Settings


@dataclass(frozen=True)
class Parameters:
    """The parameters, with defaults from the settings."""

    input_data_uri: ParameterString
    minimum_accuracy: ParameterFloat
    epochs: ParameterInteger
    seed: ParameterInteger
    processing_instance_type: ParameterString
    training_instance_type: ParameterString
    model_approval_status: ParameterString
    champion_model_uri: ParameterString

    def declared(self) -> list[Parameter]:
        """All of them, in the order in which Studio's start dialogue shows them."""
        return [getattr(self, field.name) for field in fields(self)]


def make_parameters(settings: Settings, no_champion_uri: str) -> Parameters:
    """Declare the parameters.

    InputDataUri has no default unless the settings name one: SageMaker then asks for it at start. `no_champion_uri` is the prefix that stands
    for "there is no approved model yet".
    """
    return Parameters(
        input_data_uri=ParameterString(name="InputDataUri", default_value=settings.data.input_uri),
        minimum_accuracy=ParameterFloat(name="MinimumAccuracy", default_value=settings.quality_gate.minimum_accuracy),
        epochs=ParameterInteger(name="Epochs", default_value=settings.training.epochs),
        seed=ParameterInteger(name="Seed", default_value=settings.training.seed),
        processing_instance_type=ParameterString(name="ProcessingInstanceType", default_value=settings.processing.instance_type),
        training_instance_type=ParameterString(name="TrainingInstanceType", default_value=settings.training.instance_type),
        model_approval_status=ParameterString(
            name="ModelApprovalStatus",
            default_value=settings.registry.approval_status,
            enum_values=["PendingManualApproval", "Approved", "Rejected"],
        ),
        champion_model_uri=ParameterString(name="ChampionModelUri", default_value=no_champion_uri),
    )
