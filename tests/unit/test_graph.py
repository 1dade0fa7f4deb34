"""The picture of the pipeline."""

from __future__ import annotations

from xml.etree import ElementTree

from scones.graph import draw

DEFINITION = {
    "Steps": [
        {"Name": "First", "Type": "Processing", "Arguments": {}},
        {"Name": "Second", "DisplayName": "The <second>", "Type": "Training", "Arguments": {"In": [{"Get": "Steps.First.Output['x']"}]}},
        {
            "Name": "Gate",
            "Type": "Condition",
            "Arguments": {
                "Conditions": [{"LeftValue": {"Get": "Steps.Second.Metric"}, "RightValue": 1}],
                "IfSteps": [{"Name": "Good", "Type": "Model", "Arguments": {}}],
                "ElseSteps": [{"Name": "Bad", "Type": "Fail", "Arguments": {}, "DependsOn": ["First"]}],
            },
        },
    ]
}
SVG = "{http://www.w3.org/2000/svg}"


def boxes(statuses: dict[str, str]) -> dict[str, tuple[float, float, str, str]]:
    root = ElementTree.fromstring(draw(DEFINITION, statuses))
    rectangles, texts = root.findall(f"{SVG}rect"), [text.text or "" for text in root.findall(f"{SVG}text")]
    return {
        texts[2 * number]: (float(box.get("x", "")), float(box.get("y", "")), box.get("fill", ""), texts[2 * number + 1])
        for number, box in enumerate(rectangles)
    }


def test_every_step_is_drawn_right_of_what_it_needs_and_none_on_another() -> None:
    drawn = boxes({})
    assert set(drawn) == {"First", "The <second>", "Gate", "Good", "Bad"}
    assert drawn["First"][0] < drawn["The <second>"][0] < drawn["Gate"][0] < drawn["Good"][0] == drawn["Bad"][0]
    assert len({(x, y) for x, y, _, _ in drawn.values()}) == len(drawn)


def test_an_edge_for_each_need_that_no_longer_way_says() -> None:
    # First to Bad is left out: First, Second, Gate, Bad says it already.
    root = ElementTree.fromstring(draw(DEFINITION, {}))
    assert len(root.findall(f"{SVG}path")) == 4


def test_statuses_colour_the_steps() -> None:
    drawn = boxes({"First": "Succeeded", "The <second>": "cached", "Gate": "Failed", "Second": "cached"})
    assert {name: status for name, (_, _, _, status) in drawn.items()} == {
        "First": "Succeeded",
        "The <second>": "cached",
        "Gate": "Failed",
        "Good": "not run",
        "Bad": "not run",
    }
    assert len({drawn[name][2] for name in ("First", "The <second>", "Gate", "Good")}) == 4
