"""The page's controls and the calls behind them, with gradio. Nothing is computed here."""

from collections.abc import Awaitable, Callable
from functools import wraps
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

import gradio as gr

from medst.app.api import add_api
from medst.app.guard import log_failure
from medst.app.html import comparison_html, heat_colours_css, similar_html, timeline_html
from medst.app.private_files import KEPT_SECONDS
from medst.app.studies import MOST_PHRASE, Backend, OpenStudies
from medst.app.uploads import MOST_DATE, MOST_REPORT, study_of_upload
from medst.cohort.ms_cxr_t import FINDINGS
from medst.errors import MedstError

T = TypeVar("T")

BANNER = (
    '<p class="medst-banner" role="note"><b>Research software, not a medical device.</b> '
    "Don't use it to care for anyone.</p>"
)
NOTHING_OPEN = '<p class="medst-muted">Choose a patient or add a study.</p>'
FINDING_NAMES = [name.replace("_", " ") for name in FINDINGS]


def _with_messages(process: Callable[..., Awaitable[T]]) -> Callable[..., Awaitable[T]]:
    """Turn errors of a call into messages for the visitor; those that are not ours also become one line in the log."""

    @wraps(process)
    async def with_messages(block_fn: Any, *args: Any, **kwargs: Any) -> T:
        try:
            return await process(block_fn, *args, **kwargs)
        except gr.Error:
            raise
        except MedstError as error:
            message = str(error)
        except ValueError as error:
            log_failure("a call", error)
            message = f"the page can't work with these values: {' '.join(str(error).split())[:200]}"
        except Exception as error:
            log_failure("a call", error)
            message = "the page failed: its log says why"
        # The page shows messages as HTML; the API sends them as JSON.
        raise gr.Error(message if block_fn.api_visibility == "public" else escape(message), print_exception=False)

    return with_messages


def theme() -> gr.themes.Base:
    """Gradio's plain theme with fonts of the computer; gradio's own would be fetched from a server."""
    return gr.themes.Default(
        primary_hue="teal",
        secondary_hue="teal",
        neutral_hue="slate",
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    )


def css() -> str:
    """The page's own rules, style.css, with the colours of the heat maps."""
    rules = (files("medst.app") / "style.css").read_text(encoding="utf-8")
    return f":root {{ --medst-heat: 0.6; --medst-colours: {heat_colours_css()} }}\n{rules}"


def build_page(backend: Backend, private: Path) -> gr.Blocks:
    """The page with all its controls; calls can read no file outside of `private`, the folder of visitors' files."""
    with gr.Blocks(
        title="medst: a patient over time", analytics_enabled=False, delete_cache=(300, KEPT_SECONDS)
    ) as page:
        gr.HTML(f"<h1>A patient over time</h1>{BANNER}", elem_id="medst-top")
        opened = gr.State(None, time_to_live=KEPT_SECONDS)
        own = gr.State(None, time_to_live=KEPT_SECONDS)
        chooser = _chooser(backend)
        form, add, clear = _adding()
        phrase, opacity, names = _asking()
        line = gr.HTML(NOTHING_OPEN, elem_id="medst-timeline")
        prior, current, finding, compare, compared = _comparing()
        study, search, similar = _searching(backend.cohort is not None)

        add_api(backend)  # first, so that its calls keep their names
        parts = _Handlers(backend, private)
        after = [opened, line, prior, current, study]
        hidden: dict[str, Any] = {"api_visibility": "private"}
        if chooser is not None:
            events, given = [page.load, chooser.change], [chooser, phrase]
            gr.on(events, parts.open_patient, given, after, show_progress_on=line, **hidden)
        add.click(parts.add_study, [own, *form, phrase], [own, *after, *form], show_progress_on=line, **hidden)
        clear.click(parts.start_over, form[1:3], [own, *after, *form[1:3]], **hidden)
        phrase.submit(parts.show, [opened, phrase], line, show_progress="minimal", **hidden)
        for button in names:
            chosen = button.click(lambda name=button.value: name, None, phrase, queue=False, **hidden)
            chosen.then(parts.show, [opened, phrase], line, show_progress="minimal", **hidden)
        set_heat = "v => { document.documentElement.style.setProperty('--medst-heat', v / 100) }"
        opacity.input(None, opacity, js=set_heat, **hidden)  # in the browser alone, without a request
        compare.click(parts.compare, [opened, prior, current, finding], compared, **hidden)
        search.click(parts.similar, [opened, study], similar, **hidden)
        opened.change(lambda: ("", ""), None, [compared, similar], queue=False, **hidden)
    page.process_api = _with_messages(page.process_api)
    return page


def _chooser(backend: Backend) -> gr.Dropdown | None:
    if backend.cohort is None:
        return None
    return gr.Dropdown(
        backend.patients,
        value=backend.patients[0][1] if backend.patients else None,
        label="Patient of the cohort",
        info="Patients with the most studies, held-out ones first; to open another, type its id and press Enter.",
        allow_custom_value=True,
        elem_id="medst-patient",
    )


def _adding() -> tuple[list[Any], gr.Button, gr.Button]:
    """The form for a visitor's own study (date, frontal, lateral, report), and its buttons."""
    with gr.Accordion("Your own pictures", open=False, elem_id="medst-own"):
        gr.HTML(
            '<p class="medst-muted">JPEG, PNG or DICOM, study by study. They stay in this computer\'s memory and are '
            "forgotten when you leave; a DICOM file's names are not read.</p>"
        )
        with gr.Row():
            frontal = gr.File(label="Frontal view", height=140, elem_id="medst-frontal")
            lateral = gr.File(label="Lateral view, if there is one", height=140)
        with gr.Row():
            date = gr.Textbox(
                label="Date of the study", placeholder="YYYY-MM-DD", max_length=MOST_DATE, elem_id="medst-date"
            )
            report = gr.Textbox(label="Report, if there is one", max_length=MOST_REPORT, scale=2)
        with gr.Row():
            add = gr.Button("Add study", variant="primary", elem_id="medst-add")
            clear = gr.Button("Start over", elem_id="medst-clear")
    return [date, frontal, lateral, report], add, clear


def _asking() -> tuple[gr.Textbox, gr.Slider, list[gr.Button]]:
    with gr.Row(elem_id="medst-ask"):
        phrase = gr.Textbox(
            label="Phrase to look for",
            placeholder="for instance: right pleural effusion",
            max_length=MOST_PHRASE,
            scale=4,
            min_width=300,
            submit_btn="Show",
            elem_id="medst-phrase",
        )
        label = "Opacity of the heat, %"
        opacity = gr.Slider(
            0, 100, 60, step=5, label=label, scale=2, min_width=260, buttons=[], elem_id="medst-opacity"
        )
    with gr.Row(elem_id="medst-names"):
        names = [gr.Button(name, size="sm", variant="secondary", min_width=110) for name in FINDING_NAMES]
    return phrase, opacity, names


def _comparing() -> tuple[gr.Dropdown, gr.Dropdown, gr.Dropdown, gr.Button, gr.HTML]:
    gr.HTML("<h2>Compare two studies</h2>")
    with gr.Row(elem_id="medst-compare"):
        prior = gr.Dropdown([], label="Earlier study", min_width=180)
        current = gr.Dropdown([], label="Later study", min_width=180)
        finding = gr.Dropdown(
            FINDING_NAMES, value=FINDING_NAMES[2], label="Finding", allow_custom_value=True, min_width=180
        )
        button = gr.Button("Compare", variant="primary", min_width=120, elem_id="medst-compare-go")
    return prior, current, finding, button, gr.HTML(elem_id="medst-compared")


def _searching(shown: bool) -> tuple[gr.Dropdown, gr.Button, gr.HTML]:
    gr.HTML("<h2>Similar studies in the cohort</h2>", visible=shown)
    with gr.Row(visible=shown, elem_id="medst-similar"):
        study = gr.Dropdown([], label="Study", min_width=180)
        button = gr.Button("Find similar", variant="primary", min_width=120, elem_id="medst-similar-go")
    return study, button, gr.HTML(elem_id="medst-hits", visible=shown)


class _Handlers:
    """The calls of the controls: values of components in, values of components out."""

    def __init__(self, backend: Backend, private: Path) -> None:
        self.backend, self.private = backend, private

    def open_patient(self, patient: str | None, phrase: str) -> list[Any]:
        return self._shown(self.backend.open_patient(patient or ""), phrase)

    def add_study(
        self, own: OpenStudies | None, date: str, frontal: str | None, lateral: str | None, report: str, phrase: str
    ) -> list[Any]:
        if not all(self._sent(file).is_file() for file in (frontal, lateral) if file is not None):
            raise MedstError("a file that you chose is kept for an hour only and is gone; choose it again.")
        number = 1 if own is None else len(own) + 1
        own = self.backend.add_study(own, study_of_upload(date, frontal, lateral, report, number=number))
        shown = self._shown(own, phrase)
        self._forget(frontal, lateral)  # not before, so that after a refusal the rest can be corrected and sent again
        return [own, *shown, "", None, None, ""]

    def start_over(self, frontal: str | None, lateral: str | None) -> list[Any]:
        self._forget(frontal, lateral)
        empty = gr.Dropdown(choices=[], value=None)
        return [None, None, NOTHING_OPEN, empty, empty, empty, None, None]

    def show(self, opened: OpenStudies | None, phrase: str | None) -> str:
        opened = _require(opened)
        return timeline_html(opened, self.backend.ground(opened, phrase) if phrase and phrase.strip() else None)

    def compare(self, opened: OpenStudies | None, prior: int | None, current: int | None, finding: str | None) -> str:
        opened = _require(opened)
        if prior is None or current is None:
            raise MedstError("choose two studies to compare.")
        found = self.backend.compare(opened, int(prior), int(current), finding or "")
        return comparison_html(opened, int(prior), int(current), found)

    def similar(self, opened: OpenStudies | None, number: int | None) -> str:
        opened = _require(opened)
        if number is None:
            raise MedstError("choose a study.")
        return similar_html(self.backend.similar(opened, int(number)))

    def _sent(self, file: str) -> Path:
        """The path of a visitor's file; a request could name any file of this computer."""
        path = Path(file).resolve()
        if not path.is_relative_to(self.private.resolve()):
            raise MedstError("this file was not sent to the page.")
        return path

    def _forget(self, *files: str | None) -> None:
        for file in files:
            if file is not None:
                self._sent(file).unlink(missing_ok=True)

    def _shown(self, opened: OpenStudies, phrase: str) -> list[Any]:
        names = [(opened.name(number), number) for number in range(len(opened))]
        last = len(opened) - 1
        picked = [gr.Dropdown(choices=names, value=number) for number in (max(last - 1, 0), last, last)]
        return [opened, self.show(opened, phrase), *picked]


def _require(opened: OpenStudies | None) -> OpenStudies:
    if opened is None:
        raise MedstError("choose a patient or add a study first.")
    return opened
