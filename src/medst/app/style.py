"""How the page looks: gradio's own variables, system fonts, nothing that is fetched from elsewhere."""

from importlib.resources import files

import gradio as gr

from medst.app.drawing import legend_css


def theme() -> gr.themes.Base:
    """Gradio's plain theme with the fonts that a computer has; its own would be fetched from a server."""
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
    return f":root {{ --medst-heat: 0.6; --medst-colours: {legend_css()} }}\n{rules}"
