"""The JSON Schema of the sweep file, for editors and other validators: as much of the format as a schema can express.

Pydantic's schema of the models, with its bounds in JSON Schema's terms, plus what the models leave to functions:
units, shares, ranges, and which keys go together. Names (of optimizers, hyperparameters, tasks, metrics)
and whatever depends on them are beyond a schema; `geosweep validate` checks them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.definition.arms import LONGEST_NAME
from orchestrator.definition.currency import COUNTABLE
from orchestrator.definition.field_types import AS_TIME
from orchestrator.definition.names import NOT_SEARCHED
from orchestrator.definition.parameter import DISTRIBUTIONS
from orchestrator.definition.parts import TRAINING
from orchestrator.definition.program_keys import ProgramModel
from orchestrator.definition.resolve import LARGEST_SEED
from orchestrator.definition.schema import METHODS, SweepModel
from orchestrator.definition.space import is_number
from orchestrator.definition.training_model import TrainingModel
from trainables import schedule

Schema = dict[str, Any]
WORDS = {"gt": "exclusiveMinimum", "ge": "minimum", "lt": "exclusiveMaximum", "le": "maximum"}
LARGEST = 1.7976931348623157e308
"""Anything above it is infinite."""
PERCENTAGE = r"^\d+(\.\d+)?\s*%$"
NAMED = {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}}
SAMPLER = {"type": "string", "anyOf": [{"enum": list(METHODS)}, {"pattern": r"^\S+$"}]}
"""Ours, which editors suggest; third-party ones may have any name."""
GPUS = {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "number", "minimum": 0, "exclusiveMaximum": 1}]}
OUTCOME = r"^\s*[^\s<>=]+\s*(<=|>=)\s*[-+]?[0-9.]+([eE][-+]?[0-9]+)?\s*(s|ms|m|h|%|B|[kMGT]B|[KMGT]iB)?\s*$"
PINNED = r"==\s*[^\s*]+$|@[0-9a-f]{40}(#.*)?$|#sha256=[0-9a-f]{64}$"
LEVEL = [name for name in schedule.NAMES if name not in schedule.TO_A_FLOOR]
"""Schedules that do not end at a share of the peak."""
IMAGE = r"^\S+(:(?!latest$)[\w][\w.-]*|@sha256:[0-9a-f]{64})$"


def made() -> Schema:
    """The schema as a document."""
    found: Schema = _in_words(SweepModel.model_json_schema())
    parts, top = found["$defs"], found["properties"]
    script = _in_words(ProgramModel.model_json_schema())
    parts["ProgramModel"] = {key: value for key, value in script.items() if key != "$defs"}
    _of_parameters(parts["ParameterModel"])
    _of_budget(parts["BudgetModel"])
    _of_seeds(parts["SeedsModel"])
    parts["GroupModel"]["minProperties"] = 2
    _of_samplers(parts["MethodModel"])
    parts["TrainingModel"]["allOf"] = [
        _when("schedule", {"enum": LEVEL}, {"properties": {"final_lr": {"enum": [None, 0]}}})
    ]
    parts["AnalysisModel"]["allOf"] = [
        _when("twin", {"const": True}, {"required": ["baseline"], "properties": {"baseline": {"type": "string"}}})
    ]
    parts["ResourcesModel"]["properties"]["gpu"] |= GPUS
    parts["ResourcesModel"]["properties"]["processes"]["anyOf"][0]["minimum"] = 1
    environment = parts["EnvironmentModel"]["properties"]
    environment["image"]["anyOf"][0]["pattern"] = IMAGE
    environment["requirements"]["anyOf"][0]["pattern"] = r"^(?!/)(?!(.*/)?\.\.(/|$))"
    environment["requirements"]["anyOf"][1] |= {"items": {"type": "string", "pattern": PINNED}, "uniqueItems": True}
    top["method"] = {**top["method"], "anyOf": [{"$ref": "#/$defs/MethodModel"}, SAMPLER]}
    top["task"] |= {"anyOf": [NAMED, {"$ref": "#/$defs/ProgramModel"}]}
    top["arms"]["propertyNames"] = {"pattern": "^[^@/]+$", "maxLength": LONGEST_NAME}
    top["outcome_constraints"]["items"] |= {"pattern": OUTCOME}
    top["constraints"]["items"] |= {"pattern": "[<>=]"}
    searched = "|".join(key for key in TrainingModel.model_fields if key not in NOT_SEARCHED)
    names = {"not": {"pattern": rf"^groups\.|^training\.(?!({searched})$)"}}
    for parameters in (top["parameters"], parts["ArmModel"]["properties"]["parameters"]):
        parameters["propertyNames"] = names
        parameters["properties"] = {f"{TRAINING}.{key}": _searched(key, parts) for key in searched.split("|")}
    for groups in (top["groups"], parts["ArmModel"]["properties"]["groups"]):
        groups["propertyNames"] = {"pattern": r"^\w+$"}
    group = parts["GroupModel"]
    group["additionalProperties"] = {
        "allOf": [group["additionalProperties"], {"not": {"type": "object", "required": ["schedule"]}}]
    }
    _of_program(parts["ProgramModel"])
    found["allOf"] = [_of_scripts(), _of_grids(), *_of_sections()]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **found}


def _in_words(schema: Any) -> Any:
    """Bounds that pydantic leaves beside an `anyOf` in its own terms, in those of JSON Schema; no infinite numbers."""
    if isinstance(schema, list):
        return [_in_words(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    found = {WORDS.get(key, key) if is_number(value) else key: _in_words(value) for key, value in schema.items()}
    if found.get("type") == "number" and "maximum" not in found and "exclusiveMaximum" not in found:
        found["maximum"] = LARGEST
    return found


def _when(key: str, value: Schema, then: Schema) -> Schema:
    return {"if": {"required": [key], "properties": {key: value}}, "then": then}


def _of_parameters(model: Schema) -> None:
    """A value, values, or a range that fits its distribution."""
    fields = model["properties"]
    fields["distribution"] = {**fields["distribution"], "anyOf": [{"enum": list(DISTRIBUTIONS)}, {"type": "null"}]}
    fields["values"]["anyOf"][0]["uniqueItems"] = True
    fields["when"]["anyOf"][0]["additionalProperties"] = {"not": {"const": []}}
    fields["q"]["anyOf"] = [{"type": "number", "exclusiveMinimum": 0}, {"type": "string", "pattern": PERCENTAGE}]
    for end in ("min", "max"):
        fields[end]["anyOf"] = [one for one in fields[end]["anyOf"] if one.get("type") not in ("string", "null")]
        fields[end]["anyOf"].append({"type": "string", "pattern": PERCENTAGE})
    fixed: Schema = {"properties": {"distribution": {"enum": [None, "constant"]}}, "required": ["value"]}
    listed: Schema = {"properties": {"distribution": {"enum": [None, "categorical"]}}, "required": ["values"]}
    ranged: Schema = {
        "properties": {"distribution": {"not": {"enum": ["categorical", "constant"]}}},
        "required": ["min", "max"],
    }
    alone = {"min": False, "max": False, "q": False}
    fixed["properties"] |= {"values": False, "prior": False, **alone}
    listed["properties"] |= {"value": False, **alone}
    ranged["properties"] |= {"value": False, "values": False}
    model["anyOf"] = [fixed, listed, ranged]
    model["dependentRequired"] = {"prior_confidence": ["prior"]}
    guess = {"anyOf": [{"type": "number"}, {"type": "string", "pattern": PERCENTAGE}]}
    above, whole, share = {"exclusiveMinimum": 0}, {"multipleOf": 1}, {"minimum": 0, "exclusiveMaximum": 1}
    model["allOf"] = [
        _when("distribution", {"pattern": "^(q_)?log_uniform"}, {"properties": {"min": above}}),
        _when("distribution", {"pattern": "^q_"}, {"required": ["q"]}),
        _when("distribution", {"const": "int_uniform"}, {"properties": {"min": whole, "max": whole, "q": whole}}),
        _when("distribution", {"pattern": "^one_minus"}, {"properties": {"min": share, "max": share}}),
        {"if": {"required": ["min"]}, "then": {"properties": {"prior": guess}}},
    ]


def _searched(key: str, parts: Mapping[str, Any]) -> Schema:
    """Searched values of the recipe are those that could be fixed, null excluded."""
    fixed = {"allOf": [parts["TrainingModel"]["properties"][key], {"not": {"type": "null"}}]}
    given = {"properties": {"value": fixed, "values": {"items": fixed}}, "not": {"required": ["schedule"]}}
    return {"if": {"type": "object"}, "then": {"allOf": [{"$ref": "#/$defs/ParameterModel"}, given]}, "else": fixed}


def _of_samplers(model: Schema) -> None:
    """What goes with a name: nothing for ours, a commit or a copy for a package of the hub."""
    pinned = {
        "oneOf": [{"required": ["ref"]}, {"required": ["registry"]}],
        "properties": {"ref": {"type": "string", "pattern": "^[0-9a-f]{40}$"}, "registry": {"type": "string"}},
    }
    model["properties"]["name"] |= SAMPLER
    model["allOf"] = [
        _when("name", {"enum": list(METHODS)}, {"properties": {"arguments": False, "ref": False, "registry": False}}),
        _when("name", {"pattern": "^optunahub/"}, pinned),
        _when(
            "name",
            {"pattern": "^(?!optunahub/)"},
            {"properties": {"ref": False, "registry": False, "arguments": _WITHOUT_SEED}},
        ),
    ]


_WITHOUT_SEED: Schema = {"properties": {"seed": False}}


def _of_program(model: Schema) -> None:
    fields = model["properties"]
    fields["command"]["anyOf"][0]["contains"] = {"pattern": r"\$\{program\}"}
    kinds = {
        "propertyNames": {"enum": ["pattern", "jsonl", "csv", "tensorboard"]},
        "minProperties": 1,
        "maxProperties": 1,
    }
    fields["metrics"]["anyOf"][0]["items"] |= {**kinds, "properties": {"pattern": {"pattern": r"\(\?P<"}}}
    for key in ("seed_arg", "budget_arg", "output_arg", "resume_arg"):
        fields[key]["anyOf"][0]["minLength"] = 1
    model["dependentRequired"] = {"checkpoints": ["resume_arg"]}


def _of_sections() -> list[Schema]:
    """What one section requires of another."""
    gpus = {
        "required": ["resources"],
        "properties": {"resources": {"required": ["gpu"], "properties": {"gpu": _ABOVE}}},
    }
    pbt = {
        "early_terminate": {"properties": {"audit_share": {"const": 0}}},
        "seeds": {"properties": {"tune": {"anyOf": [{"const": 1}, {"type": "array"}]}}},
    }
    strict = {"type": "object", "required": ["replay"], "properties": {"replay": {"const": "strict"}}}
    gp = {"anyOf": [{"const": "gp"}, {"type": "object", "required": ["name"], "properties": {"name": {"const": "gp"}}}]}
    packed = {"resources": {"required": ["pack"], "properties": {"pack": {"minimum": 2}}}}
    alone = {
        "resources": {"properties": {"processes": {"enum": [1, "auto"]}, "readers": {"enum": [0, "auto"]}}},
        "task": {"not": {"type": "object", "required": ["program"]}},
        "budget": {"properties": {"unit": {"not": {"const": "seconds"}}}},
        "diagnostics": {"type": "null"},
        "method": {"not": strict},
    }
    return [
        {"if": {"required": ["resources"], "properties": packed}, "then": {"properties": alone}},
        *(_inside("budget", key, {"type": "number"}, gpus) for key in ("gpu_hours", "money")),
        _inside("early_terminate", "type", {"const": "pbt"}, {"properties": pbt}),
        _inside("budget", "unit", {"const": "seconds"}, _without("constraints", r"\b(steps|grad_evals)\b")),
        _when("method", strict, _without("outcome_constraints", r"^\s*time/")),
        _when("method", gp, {"properties": {"objectives": {"maxItems": 0}}}),
    ]


_ABOVE: Schema = {"exclusiveMinimum": 0}


def _inside(section: str, key: str, value: Schema, then: Schema) -> Schema:
    return _when(section, {"type": "object", "required": [key], "properties": {key: value}}, then)


def _without(section: str, pattern: str) -> Schema:
    return {"properties": {section: {"items": {"not": {"pattern": pattern}}}}}


def _of_budget(model: Schema) -> None:
    model["dependentRequired"] = {"money": ["price_per_gpu_hour"]}
    whole, number = ({"properties": {"per_trial": one}} for one in ({"multipleOf": 1}, {"type": "number"}))
    model["properties"]["per_trial"]["anyOf"].append({"type": "string", "pattern": AS_TIME})
    model["allOf"] = [
        _when("unit", {"const": "seconds"}, {}) | {"else": number},
        _when("unit", {"enum": list(COUNTABLE)}, whole),
        _when("unit", {"const": "seconds"}, {"properties": {"grad_evals": {"type": "null"}}}),
    ]


def _of_seeds(model: Schema) -> None:
    for key in ("tune", "confirm"):
        model["properties"][key] = _of_seed_lists(model["properties"][key])
    fresh = {"properties": {"confirm": {"not": {"enum": [0, []]}}}}
    model["allOf"] = [_when("studies", {"type": "integer", "minimum": 2}, fresh)]


def _of_seed_lists(schema: Schema) -> Schema:
    """Seeds from 0 to 2^63 - 1, none twice, and either seeds or lists of them."""
    count, given = schema["anyOf"]
    seeds = {
        "type": "array",
        "items": {"type": "integer", "minimum": 0, "maximum": LARGEST_SEED - 1},
        "uniqueItems": True,
    }
    least = {"minItems": given["minItems"]} if "minItems" in given else {}
    nested = {"type": "array", "items": {**seeds, "minItems": 1}, "minItems": 1, "uniqueItems": True}
    return {**schema, "anyOf": [count, {**seeds, **least}, nested]}


def _of_scripts() -> Schema:
    """What a script cannot be given, and what only a script can."""
    script = {"required": ["task"], "properties": {"task": {"required": ["program"]}}}
    none: Mapping[str, Any] = {"training": {"maxProperties": 0}, "diagnostics": {"type": "null"}}
    without = {**none, "cache": {"enum": [False, None]}, "controls": {"maxItems": 0, "not": {"const": "auto"}}}
    without["resources"] = {"properties": {"processes": {"enum": [1, "auto"]}, "readers": {"not": {"type": "integer"}}}}
    arguments = {"properties": {"parameters": {"propertyNames": {"pattern": r"^[^\s=]+$"}}}}
    without |= {"arms": {"additionalProperties": arguments}, **arguments["properties"]}
    unknown = {"required": ["unit"], "properties": {"unit": {"not": {"const": "grad_evals"}}}}
    without["budget"] = {"if": unknown, "then": {"properties": {"grad_evals": {"type": "null"}}}}
    without["early_terminate"] = {"properties": {"type": {"not": {"const": "pbt"}}}}
    ours = {"budget": {"properties": {"unit": {"not": {"const": "epochs"}}}}}
    return {"if": script, "then": {"properties": without}, "else": {"properties": ours}}


def _of_grids() -> Schema:
    """Every method except grid needs the number of configurations to try."""
    grid = {
        "anyOf": [
            {"const": "grid"},
            {"type": "object", "required": ["name"], "properties": {"name": {"const": "grid"}}},
        ]
    }
    counted = {"properties": {"budget": {"required": ["trials_per_arm"]}}}
    return {"if": {"required": ["method"], "properties": {"method": grid}}, "else": counted}
