"""Directive ``study-configurations``, and links from docstrings to what the reference has under another name."""

from dataclasses import is_dataclass
from typing import get_type_hints

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.domains.python import PythonDomain
from sphinx.environment import BuildEnvironment
from sphinx.util.docutils import SphinxDirective
from sphinx.util.nodes import make_refnode

from hbanalysis import studies
from hbanalysis.adaptive_batch import AdaptiveBatch
from hbanalysis.studies import Study
from hbanalysis.training import TrainingConfig
from hbanalysis.training.pacing import Watch


def dataclasses_of(kind: type) -> list[type]:
    """Return a dataclass and those of its fields that are dataclasses."""
    inner = [hint for hint in get_type_hints(kind).values() if isinstance(hint, type) and is_dataclass(hint)]
    return [kind, *(found for one in inner for found in dataclasses_of(one))]


class StudyConfigurations(SphinxDirective):
    """A section a study: its page, its scales, what may be replaced, and the dataclasses of its cells."""

    def run(self) -> list[nodes.Node]:
        """Return the sections."""
        self.env.note_reread()
        shown = {TrainingConfig, AdaptiveBatch, Watch}  # documented above
        sections = []
        for name in studies.names():
            study = studies.get(name)
            kinds = [kind for kind in dict.fromkeys(dataclasses_of(study.cell_type)) if kind not in shown]
            shown.update(kinds)
            section = nodes.section(
                "", nodes.title("", study.title), ids=[f"study-{nodes.make_id(name)}"], names=[name]
            )
            section += self.parse_text_to_nodes(text_of(study, kinds))
            sections.append(section)
        return sections


def text_of(study: Study, kinds: list[type]) -> str:
    """Return the text of a study's section."""
    lines = [
        f"`{study.name}`, page {{doc}}`/notebooks/{study.notebook}`, scales {', '.join(study.scales)}.",
        "",
        "| parameter | type | what it is |",
        "|---|---|---|",
        *(f"| `{name}` | `{one.type_name}` | {one.help} |" for name, one in sorted(study.parameters.items())),
        "",
        *("```{eval-rst}", *(f".. autoclass:: {kind.__module__}.{kind.__qualname__}" for kind in kinds), "```"),
    ]
    return "\n".join(lines if kinds else lines[:-2])


def resolve(app: Sphinx, env: BuildEnvironment, node: pending_xref, text: nodes.Element) -> nodes.Node | None:
    """Link a name that the reference has in one place only, whatever module the docstring knows it from."""
    if node.get("refdomain") != "py":
        return None
    if node["reftype"] == "class" and not node["reftarget"].startswith("hbanalysis"):
        return text  # types of other libraries, as annotations name them, are no pages of this site
    domain = env.get_domain("py")
    assert isinstance(domain, PythonDomain)
    last = node["reftarget"].rpartition(".")[2]
    found = [name for name, entry in domain.objects.items() if not entry.aliased and name.rpartition(".")[2] == last]
    found.sort(key=lambda name: name.count("."))  # a function before methods of its name
    if not found or (len(found) > 1 and found[0].count(".") == found[1].count(".")):
        return None
    name, entry = found[0], domain.objects[found[0]]
    return make_refnode(app.builder, node["refdoc"], entry.docname, entry.node_id, text, name)


def setup(app: Sphinx) -> dict[str, object]:
    """Register with Sphinx."""
    app.add_directive("study-configurations", StudyConfigurations)
    app.connect("missing-reference", resolve)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
