from intarsia.anatomy.describe import anatomy as anatomy
from intarsia.classes import ClassTable as ClassTable
from intarsia.errors import IntarsiaError as IntarsiaError
from intarsia.evaluation.compare import compare as compare
from intarsia.evaluation.evaluate import evaluate as evaluate
from intarsia.evaluation.experiment import train as train
from intarsia.evaluation.exporting import export as export
from intarsia.models.base import create_model as create_model
from intarsia.prediction.predict import predict as predict
from intarsia.prediction.predictor import load as load
from intarsia.recipes.recipe import Recipe as Recipe

__version__: str
__all__: list[str]
