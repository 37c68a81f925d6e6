"""The base of every config value: frozen, unknown keys refused, one sentence of help under each field.

Three doors lead to the same value: Python (`recipe.replace(train={"lr": 1e-3})`), YAML (`read_yaml`) and the command
line (`override(recipe, ["train.lr=1e-3"])`); all of them end in `Config.replace`, so a slip is answered in one way.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from intarsia.errors import ConfigError
from intarsia.registry import did_you_mean


class InvalidSettings(ConfigError):
    """Values that were refused: `problems` holds (path, text) of each."""

    def __init__(self, problems: Sequence[tuple[str, str]]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(f"{path}: {text}" if path else text for path, text in problems))

    def below(self, where: str) -> InvalidSettings:
        """The same, with paths that start at `where`."""
        return InvalidSettings([(".".join(filter(None, (where, path))), text) for path, text in self.problems])


class Config(BaseModel):
    """A frozen value. The string under a field is its help."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, protected_namespaces=(), allow_inf_nan=False
    )

    def __init__(self, /, **settings: Any) -> None:
        try:
            super().__init__(**settings)
        except ValidationError as error:
            raise InvalidSettings(_problems(error, type(self))) from None

    def replace(self, changes: Mapping[str, Any] | None = None, /, *, where: str = "", **settings: Any) -> Self:
        """A checked copy with changes. A mapping for a nested config changes that config's settings.

        Args:
            changes: settings to change; may be nested.
            where: path of this value, for messages, such as "model".

        Raises:
            ConfigError: for a setting that does not exist or a wrong value, with its path and the nearest right name.
        """
        fields = type(self).model_fields
        values = {name: getattr(self, name) for name in fields}
        for key, new in {**(changes or {}), **settings}.items():
            path = f"{where}.{key}" if where else str(key)
            if key not in fields:
                prefix = f"{where}." if where else ""
                hint = did_you_mean(f"{prefix}{key}", [f"{prefix}{name}" for name in fields])
                raise ConfigError(
                    f"{path}: there is no such setting.{hint or ' There are: ' + ', '.join(fields) + '.'}"
                )
            values[key] = _merged(values[key], new, path)
        try:
            return type(self)(**values)
        except InvalidSettings as error:
            raise error.below(where) from None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as JSON and YAML hold them; nested configs keep the settings of their own class."""
        return self.model_dump(mode="json", serialize_as_any=True)


class NamedConfig(Config):
    """A config that a registry holds; `name` is the preset it came from."""

    name: str = ""
    """Name of the preset that these settings started from."""

    carried: ClassVar[tuple[str, ...]] = ()
    """Settings that belong to the data and stay when another name is chosen."""


def _merged(old: Any, new: Any, path: str) -> Any:
    """`new`, or `old` with the settings of `new` if both say how a config looks."""
    if not isinstance(old, Config):
        return new
    if isinstance(old, NamedConfig):
        name = new if isinstance(new, str) else new.get("name") if isinstance(new, Mapping) else None
        if name is not None and (isinstance(new, str) or name != old.name):
            kept = {key: getattr(old, key) for key in old.carried if getattr(old, key) is not None}
            return {**kept, **(new if isinstance(new, Mapping) else {"name": new})}
    if isinstance(new, Mapping):
        return old.replace(new, where=path)
    return new


def _problems(error: ValidationError, cls: type[BaseModel]) -> list[tuple[str, str]]:
    """(path, text) of each value that was refused."""
    problems = []
    for item in error.errors():
        path = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            text = f"there is no such setting.{did_you_mean(str(item['loc'][-1]), cls.model_fields)}"
        else:
            reason = item["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
            met = "" if isinstance(item["input"], (Mapping, BaseModel)) else f", got {item['input']!r}"
            text = f"{reason[:1].lower()}{reason[1:]}{met}."
        problems.append((path, text))
    return list(dict.fromkeys(problems))


T = TypeVar("T", bound=Config)


class _Loader(yaml.SafeLoader):
    """YAML in which 1e-3 is a number, as everybody expects."""


_Loader.yaml_implicit_resolvers = {key: list(value) for key, value in yaml.SafeLoader.yaml_implicit_resolvers.items()}


class _Dumper(yaml.SafeDumper):
    """Writes what `_Loader` reads: the text 1e3 in quotes."""


_Dumper.yaml_implicit_resolvers = {key: list(value) for key, value in yaml.SafeDumper.yaml_implicit_resolvers.items()}
_NUMBER = ("tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+0123456789."))
_Loader.add_implicit_resolver(*_NUMBER)
_Dumper.add_implicit_resolver(*_NUMBER)


def parse_yaml(text: str, *, source: str) -> Any:
    """The value that a YAML (or JSON) text holds; `source` names it in messages."""
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f" line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigError(f"{source}:{place} is not YAML ({getattr(error, 'problem', None) or error}).") from None


def read_yaml(path: Path) -> Any:
    """The value that a YAML or JSON file holds."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is not UTF-8 text. Save it as UTF-8.") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}).") from None
    return parse_yaml(text, source=str(path))


def parse_settings(settings: Iterable[str]) -> dict[str, Any]:
    """`["model=unet", "train.lr=1e-3"]` as a nested mapping; the order does not matter."""
    tree: dict[str, Any] = {}
    for setting in settings:
        key, sign, text = setting.partition("=")
        if not sign or not key:
            raise ConfigError(f"{setting!r}: a setting is written KEY=VALUE, such as train.epochs=50.")
        value = parse_yaml(text, source=key) if text else None
        *parents, last = key.strip().split(".")
        node = tree
        for parent in parents:
            child = node.setdefault(parent, {})
            if not isinstance(child, dict):
                child = node[parent] = {"name": child}
            node = child
        if isinstance(node.get(last), dict) and not isinstance(value, dict):
            node[last]["name"] = value
        else:
            node[last] = value
    return tree


def override(config: T, settings: Sequence[str]) -> T:
    """`config` with `key=value` settings as the command line takes them."""
    return config.replace(parse_settings(settings)) if settings else config


def digest_of(value: Any) -> str:
    """16 hexadecimal digits that stand for a value of JSON: sha256 of its text, keys sorted."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def to_yaml(config: Config, *, comments: bool = True, indent: int = 0) -> str:
    """YAML text of every setting, each under its help; `parse_yaml` reads it back to the same value."""
    pad, lines = "  " * indent, []
    data = config.to_dict()
    for name, field in type(config).model_fields.items():
        value = getattr(config, name)
        if comments and field.description:
            lines.append(f"{pad}# {' '.join(field.description.split())}")
        if isinstance(value, Config):
            lines += [f"{pad}{name}:", to_yaml(value, comments=comments, indent=indent + 1).rstrip("\n")]
        else:
            text = yaml.dump(
                data[name], Dumper=_Dumper, default_flow_style=True, width=10**9, allow_unicode=True
            ).strip()
            lines.append(f"{pad}{name}: {text.removesuffix('...').strip()}")
    return "\n".join(lines) + "\n"
