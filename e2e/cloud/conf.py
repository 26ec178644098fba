"""Writes the ini files of oslo.config from nested dicts."""

from pathlib import Path


def merged(*layers: dict[str, dict]) -> dict[str, dict]:
    """Later layers win, option by option."""
    result: dict[str, dict] = {}
    for layer in layers:
        for section, options in layer.items():
            result.setdefault(section, {}).update(options)
    return result


def write_ini(path: Path, sections: dict[str, dict]) -> None:
    lines = []
    for section, options in sections.items():
        lines.append(f"[{section}]")
        lines += [f"{key} = {value}" for key, value in options.items()]
        lines.append("")
    path.write_text("\n".join(lines))
