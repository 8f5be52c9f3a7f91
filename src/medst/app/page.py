"""The page's controls and what they call; gradio. Nothing is computed here."""

from collections.abc import Awaitable, Callable
from functools import partial, wraps
from html import escape
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import gradio as gr

from medst.app.api import offer
from medst.app.guard import log_failure
from medst.app.html import comparison_html, similar_html, timeline_html
from medst.app.serve import KEPT
from medst.app.studies import PHRASE, Desk, Visit
from medst.app.uploads import DATE, REPORT, study_of_upload
from medst.cohort.ms_cxr_t import FINDINGS
from medst.errors import MedstError

P = ParamSpec("P")
T = TypeVar("T")

BANNER = (
    '<p class="medst-banner" role="note"><b>Research software, not a medical device.</b> '
    "Don't use what it shows to care for anyone.</p>"
)
NAMES = [name.replace("_", " ") for name in FINDINGS]


def told(function: Callable[P, T], say: Callable[[str], str] = escape) -> Callable[P, T]:
    """The same, with our errors as messages on the page, which shows messages as HTML."""

    @wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(*args, **kwargs)
        except MedstError as error:
            raise gr.Error(say(str(error)), print_exception=False) from None

    return wrapped


def quiet(process: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
    """The same, with what gradio or a call raises as a message for the visitor and one line in the log."""

    @wraps(process)
    async def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await process(*args, **kwargs)
        except gr.Error:
            raise
        except Exception as error:
            log_failure("a call", error)
            said = "the page can't work with these values" if isinstance(error, ValueError) else "the page failed"
            words = " ".join(str(error).split())[:200] if isinstance(error, ValueError) else "its log says why"
            raise gr.Error(escape(f"{said}: {words}"), print_exception=False) from None

    return wrapped


def build_page(desk: Desk, private: Path) -> gr.Blocks:
    """The whole page.

    Args:
        desk: a model and a cohort or none.
        private: folder with visitors' files; no other file is read for them.
    """
    with gr.Blocks(title="medst: a patient over time", analytics_enabled=False, delete_cache=(300, KEPT)) as page:
        gr.HTML(f"<h1>A patient over time</h1>{BANNER}", elem_id="medst-top")
        visit = gr.State(None, time_to_live=KEPT)
        own = gr.State(None, time_to_live=KEPT)
        chooser = _chooser(desk)
        adding = _adding()
        with gr.Row(elem_id="medst-ask"):
            phrase = gr.Textbox(
                label="Phrase to look for",
                placeholder="for instance: right pleural effusion",
                max_length=PHRASE,
                scale=4,
                min_width=300,
                submit_btn="Show",
                elem_id="medst-phrase",
            )
            opacity = gr.Slider(
                0,
                100,
                60,
                step=5,
                label="Opacity of the heat, %",
                scale=2,
                min_width=260,
                buttons=[],
                elem_id="medst-opacity",
            )
        with gr.Row(elem_id="medst-names"):
            names = [gr.Button(name, size="sm", variant="secondary", min_width=110) for name in NAMES]
        line = gr.HTML('<p class="medst-muted">Choose a patient or add a study.</p>', elem_id="medst-timeline")
        prior, current, finding, compare, compared = _comparing()
        study, search, similar = _searching(desk.cohort is not None)

        offer(desk, partial(told, say=str))  # first, so that its calls have their names and not the controls' own
        after = [visit, line, prior, current, study]
        parts = _Handlers(desk, private)
        if chooser is not None:
            gr.on(
                [page.load, chooser.change], parts.open_patient, [chooser, phrase], after, api_visibility="private",
                show_progress_on=line,
            )  # fmt: skip
        adding["add"].click(
            parts.add_study,
            [own, *(adding[name] for name in ("date", "frontal", "lateral", "report")), phrase],
            [own, *after, *(adding[name] for name in ("date", "frontal", "lateral", "report"))],
            api_visibility="private",
            show_progress_on=line,
        )
        adding["clear"].click(
            parts.start_over,
            [adding["frontal"], adding["lateral"]],
            [own, *after, adding["frontal"], adding["lateral"]],
            api_visibility="private",
        )
        phrase.submit(parts.show, [visit, phrase], line, api_visibility="private", show_progress="minimal")
        for button in names:
            button.click(lambda name=button.value: name, None, phrase, api_visibility="private", queue=False).then(
                parts.show, [visit, phrase], line, api_visibility="private", show_progress="minimal"
            )
        # In the browser alone: nothing is sent for it.
        opacity.input(
            None,
            opacity,
            None,
            js="v => { document.documentElement.style.setProperty('--medst-heat', v / 100) }",
            api_visibility="private",
        )
        compare.click(parts.compare, [visit, prior, current, finding], compared, api_visibility="private")
        search.click(parts.similar, [visit, study], similar, api_visibility="private")
        visit.change(lambda: ("", ""), None, [compared, similar], api_visibility="private", queue=False)
    return page


def _chooser(desk: Desk) -> gr.Dropdown | None:
    if desk.cohort is None:
        return None
    return gr.Dropdown(
        desk.patients,
        value=desk.patients[0][1] if desk.patients else None,
        label="Patient of the cohort",
        info="Those with the most studies, held-out ones first; type another id and press Enter.",
        allow_custom_value=True,
        elem_id="medst-patient",
    )


def _adding() -> dict[str, Any]:
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
                label="Date of the study", placeholder="YYYY-MM-DD", max_length=DATE, elem_id="medst-date"
            )
            report = gr.Textbox(label="Report, if there is one", max_length=REPORT, scale=2)
        with gr.Row():
            add = gr.Button("Add study", variant="primary", elem_id="medst-add")
            clear = gr.Button("Start over", elem_id="medst-clear")
    return {"date": date, "frontal": frontal, "lateral": lateral, "report": report, "add": add, "clear": clear}


def _comparing() -> tuple[gr.Dropdown, gr.Dropdown, gr.Dropdown, gr.Button, gr.HTML]:
    gr.HTML("<h2>Compare two studies</h2>")
    with gr.Row(elem_id="medst-compare"):
        prior = gr.Dropdown([], label="Earlier study", min_width=180)
        current = gr.Dropdown([], label="Later study", min_width=180)
        finding = gr.Dropdown(NAMES, value=NAMES[2], label="Finding", allow_custom_value=True, min_width=180)
        button = gr.Button("Compare", variant="primary", min_width=120, elem_id="medst-compare-go")
    return prior, current, finding, button, gr.HTML(elem_id="medst-compared")


def _searching(shown: bool) -> tuple[gr.Dropdown, gr.Button, gr.HTML]:
    gr.HTML("<h2>Similar studies in the cohort</h2>", visible=shown)
    with gr.Row(visible=shown, elem_id="medst-similar"):
        study = gr.Dropdown([], label="Study", min_width=180)
        button = gr.Button("Find similar", variant="primary", min_width=120, elem_id="medst-similar-go")
    return study, button, gr.HTML(elem_id="medst-hits", visible=shown)


class _Handlers:
    """What the controls call: values of components in, values of components out."""

    def __init__(self, desk: Desk, private: Path) -> None:
        self.desk, self.private = desk, private
        for name in ("open_patient", "add_study", "show", "compare", "similar"):
            setattr(self, name, told(getattr(self, name)))

    def open_patient(self, patient: str | None, phrase: str) -> list[Any]:
        return self._shown(self.desk.visit(patient or ""), phrase)

    def add_study(
        self, own: Visit | None, date: str, frontal: str | None, lateral: str | None, report: str, phrase: str
    ) -> list[Any]:
        if not all(self._sent(file).is_file() for file in (frontal, lateral) if file is not None):
            raise MedstError("a file that you chose is kept for an hour only and is gone; choose it again.")
        number = 1 if own is None else len(own) + 1
        own = self.desk.add(own, study_of_upload(date, frontal, lateral, report, number=number))
        shown = self._shown(own, phrase)
        self._forget(frontal, lateral)  # only now: what was refused can be corrected and sent again
        return [own, *shown, "", None, None, ""]

    def start_over(self, frontal: str | None, lateral: str | None) -> list[Any]:
        self._forget(frontal, lateral)
        empty = gr.Dropdown(choices=[], value=None)
        nothing = '<p class="medst-muted">Choose a patient or add a study.</p>'
        return [None, None, nothing, empty, empty, empty, None, None]

    def show(self, visit: Visit | None, phrase: str | None) -> str:
        visit = _opened(visit)
        return timeline_html(visit, self.desk.ground(visit, phrase) if phrase and phrase.strip() else None)

    def compare(self, visit: Visit | None, prior: int | None, current: int | None, finding: str | None) -> str:
        visit = _opened(visit)
        if prior is None or current is None:
            raise MedstError("choose two studies to compare.")
        found = self.desk.compare(visit, int(prior), int(current), finding or "")
        return comparison_html(visit, int(prior), int(current), found)

    def similar(self, visit: Visit | None, number: int | None) -> str:
        visit = _opened(visit)
        if number is None:
            raise MedstError("choose a study.")
        return similar_html(self.desk.similar(visit, int(number)))

    def _sent(self, file: str) -> Path:
        """The path, if it is that of a visitor's file; what a request names may be any file of this computer."""
        path = Path(file).resolve()
        if not path.is_relative_to(self.private.resolve()):
            raise MedstError("this file was not sent to the page.")
        return path

    def _forget(self, *files: str | None) -> None:
        for file in files:
            if file is not None:
                self._sent(file).unlink(missing_ok=True)

    def _shown(self, visit: Visit, phrase: str) -> list[Any]:
        names = [(visit.name(number), number) for number in range(len(visit))]
        last = len(visit) - 1
        picked = [gr.Dropdown(choices=names, value=number) for number in (max(last - 1, 0), last, last)]
        return [visit, self.show(visit, phrase), *picked]


def _opened(visit: Visit | None) -> Visit:
    if visit is None:
        raise MedstError("choose a patient or add a study first.")
    return visit
