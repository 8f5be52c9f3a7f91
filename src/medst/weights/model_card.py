"""Template of the model card that is saved with the weights."""

TEMPLATE = """---
{{ card_data }}
---

# A medst model

Embeds chest X-rays (frontal, with or without the lateral of the same study) and their reports in one space of
{{ settings.embedding }} dimensions, trained over space (views) and time (a patient's studies) as in *Unlocking the Power of
Spatial and Temporal Information in Medical Multimodal Pre-training* (Med-ST, ICML 2024, arXiv 2405.19654).

| | |
| --- | --- |
| recipe | `{{ recipe }}` |
| written by | medst {{ version }} |
| parameters | {{ "{:,}".format(parameters) }} |
| image encoder | ViT, {{ settings.vision.depth }} blocks of width {{ settings.vision.width }} |
| pictures | side {{ settings.vision.image_size }}, patches of side {{ settings.vision.patch_size }} |
| text encoder | BERT, {{ settings.text.layers }} layers of width {{ settings.text.width }} |
| word order | {{ "seen" if settings.text.positions else "not seen: a report is a bag of words, as released" }} |

## Use

```python
import medst

model = medst.load("{{ repo_id }}")
images = model.encode_image("frontal.jpg", "lateral.dcm")
model.similarity(images, ["There is a right pleural effusion."])
model.ground(images, "right pleural effusion")[0].frontal.pixels()  # a heat map
```

`config.json` holds the shape of the model, `recipe.json` every setting of the run. The weights are safetensors;
nothing in this folder is executed when loaded.

## Limits

For research. Not a medical device: do not use it for decisions about patients. It was trained on, and is only known to
work on, the data named in its run; check the terms of that data before passing the weights on.
"""
