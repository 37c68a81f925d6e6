"""The repository says what the file says of itself, in a form that protobuf's own reader of texts takes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

from intarsia.engines.card import Border
from intarsia.errors import ConfigError
from intarsia.export.triton import write_triton
from tests.export.small_nets import classes_of, small_card, write_small

KINDS = {
    "plain": small_card(),
    "pixels_to_classes": small_card(input="pixels", output="classes"),
    "grey": small_card(1, scale=0.5),
    "grey_half_to_classes": small_card(1, scale=0.5, output="classes"),
    "valid_half": small_card(scale=0.7, border=Border(stride=4, lost=4, first=8)),
    "valid": small_card(1, input="pixels", border=Border(stride=4, lost=4, first=8)),
}
TYPES = {"tensor(float)": "TYPE_FP32", "tensor(uint8)": "TYPE_UINT8"}
_FIELD = descriptor_pb2.FieldDescriptorProto
SCHEMA: dict[str, dict[str, tuple[int, Any, bool]]] = {
    "ModelInput": {"name": (1, "string", False), "data_type": (2, ".DataType", False), "dims": (4, "int64", True)},
    "ModelOutput": {"name": (1, "string", False), "data_type": (2, ".DataType", False), "dims": (3, "int64", True)},
    "ModelQueuePolicy": {
        "timeout_action": (1, ".TimeoutAction", False),
        "default_timeout_microseconds": (2, "uint64", False),
        "allow_timeout_override": (3, "bool", False),
        "max_queue_size": (4, "uint32", False),
    },
    "ModelDynamicBatching": {
        "max_queue_delay_microseconds": (2, "uint64", False),
        "default_queue_policy": (6, ".ModelQueuePolicy", False),
    },
    "ModelInstanceGroup": {"count": (2, "int32", False), "gpus": (3, "int32", True), "kind": (4, ".Kind", False)},
    "ModelConfig": {
        "name": (1, "string", False),
        "platform": (2, "string", False),
        "max_batch_size": (4, "int32", False),
        "input": (5, ".ModelInput", True),
        "output": (6, ".ModelOutput", True),
        "instance_group": (7, ".ModelInstanceGroup", True),
        "dynamic_batching": (11, ".ModelDynamicBatching", False),
    },
}
"""What Triton's model_config.proto says of the fields that we use: number, type, repeated."""
ENUMS = {
    "DataType": {"TYPE_INVALID": 0, "TYPE_UINT8": 2, "TYPE_FP32": 11},
    "TimeoutAction": {"REJECT": 0, "DELAY": 1},
    "Kind": {"KIND_AUTO": 0, "KIND_GPU": 1, "KIND_CPU": 2, "KIND_MODEL": 3},
}


def read_config(text: str) -> Any:
    """A ModelConfig; an unknown field, a wrong type or wrong syntax raises ParseError."""
    file = descriptor_pb2.FileDescriptorProto(name="model_config.proto", syntax="proto3")
    for name, values in ENUMS.items():
        enum = file.enum_type.add(name=name)
        for value, number in values.items():
            enum.value.add(name=value, number=number)
    for name, fields in SCHEMA.items():
        message = file.message_type.add(name=name)
        for field, (number, kind, repeated) in fields.items():
            label = _FIELD.LABEL_REPEATED if repeated else _FIELD.LABEL_OPTIONAL
            made = message.field.add(name=field, number=number, label=label)
            if kind.startswith("."):
                made.type_name = kind
                made.type = _FIELD.TYPE_ENUM if kind[1:] in ENUMS else _FIELD.TYPE_MESSAGE
            else:
                made.type = getattr(_FIELD, f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return text_format.Parse(text, message_factory.GetMessageClass(pool.FindMessageTypeByName("ModelConfig"))())


def named(message: Any, field: str) -> str:
    """The name of an enum's value."""
    value: str = message.DESCRIPTOR.fields_by_name[field].enum_type.values_by_number[getattr(message, field)].name
    return value


@pytest.mark.parametrize("kind", KINDS)
def test_the_config_says_what_the_file_says(kind: str, tmp_path: Path) -> None:
    write_small(tmp_path / "small.onnx", KINDS[kind])
    place = write_triton(tmp_path / "small.onnx", tmp_path / "models", name="street-1", max_batch=4)
    assert place == tmp_path / "models" / "street-1"
    config = read_config((place / "config.pbtxt").read_text())
    assert (config.name, config.platform, config.max_batch_size) == ("street-1", "onnxruntime_onnx", 4)
    session = onnxruntime.InferenceSession(str(place / "1" / "model.onnx"), providers=["CPUExecutionProvider"])
    for told, there in ((config.input, session.get_inputs()), (config.output, session.get_outputs())):
        assert [each.name for each in told] == [each.name for each in there]
        assert [named(each, "data_type") for each in told] == [TYPES[each.type] for each in there]
        for each, one in zip(told, there, strict=True):
            assert list(each.dims) == [side if isinstance(side, int) else -1 for side in one.shape[1:]]
            assert not isinstance(one.shape[0], int)
    policy = config.dynamic_batching.default_queue_policy
    assert named(policy, "timeout_action") == "REJECT"
    assert policy.max_queue_size == 32
    assert policy.default_timeout_microseconds == 30_000_000
    assert config.dynamic_batching.max_queue_delay_microseconds == 5_000
    assert (place / "labels.txt").read_text().splitlines() == list(small_card().classes.names)


def test_the_commented_instance_groups_can_be_taken_in(tmp_path: Path) -> None:
    write_small(tmp_path / "small.onnx", small_card())
    text = (write_triton(tmp_path / "small.onnx", tmp_path, name="one") / "config.pbtxt").read_text()
    groups = re.findall(r"^# (instance_group .*)$", text, re.MULTILINE)
    assert [named(read_config(text + group).instance_group[0], "kind") for group in groups] == ["KIND_GPU", "KIND_CPU"]
    with pytest.raises(text_format.ParseError):
        read_config(text + "instance_groups [ { kind: KIND_CPU } ]")


@pytest.mark.parametrize("kind", KINDS)
def test_the_code_in_the_readme_makes_the_input(kind: str, tmp_path: Path) -> None:
    card = write_small(tmp_path / "small.onnx", KINDS[kind])
    place = write_triton(tmp_path / "small.onnx", tmp_path, name="one")
    prepare, request = re.findall(r"```python\n(.*?)```", (place / "README.md").read_text(), re.DOTALL)
    pixels = np.random.default_rng(3).integers(0, 256, (60, 47, 3), np.uint8)
    session = onnxruntime.InferenceSession(str(place / "1" / "model.onnx"), providers=["CPUExecutionProvider"])
    space: dict[str, Any] = {"pixels": pixels}
    exec(prepare, space)  # ours, from the page that we wrote
    image = space["prepare"](pixels)
    kinds = {"float32": "FP32", "uint8": "UINT8"}
    assert f'InferInput("image", list(image.shape), "{kinds[image.dtype.name]}")' in request
    space["found"] = session.run(None, {"image": image})[0]
    exec(request[request.index("maps = ") :], space)
    expected = classes_of(tmp_path / "small.onnx", card, pixels)
    assert space["classes"].shape == expected.shape
    assert (space["classes"] == expected).mean() >= 0.999


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"name": "../up"}, "is no name for Triton"), ({"name": "a", "max_batch": 0}, "must be at least 1")],
)
def test_wrong_arguments(settings: dict[str, Any], words: str, tmp_path: Path) -> None:
    write_small(tmp_path / "small.onnx", small_card())
    with pytest.raises(ConfigError, match=words):
        write_triton(tmp_path / "small.onnx", tmp_path / "models", **settings)
    assert not (tmp_path / "models").exists()


def test_other_files_stay(tmp_path: Path) -> None:
    write_small(tmp_path / "small.onnx", small_card())
    for _ in range(2):  # an earlier export may be written over
        place = write_triton(tmp_path / "small.onnx", tmp_path / "models", name="one")
    (place / "2").mkdir()
    with pytest.raises(ConfigError, match=r"holds other files \(2\)"):
        write_triton(tmp_path / "small.onnx", tmp_path / "models", name="one")
