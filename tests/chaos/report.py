# SPDX-License-Identifier: Apache-2.0
"""What was measured, for people: a line, a table, and a page with plots in English and in Korean."""

import html
import json
import unicodedata
from pathlib import Path

LANGUAGES = ("en", "ko")
PROOFS = json.loads(Path(__file__).with_name("proofs.json").read_text(encoding="utf-8"))
WORDS = {
    "en": {
        "title": "mervis-agent: what was broken, and how it came back",
        "intro":
            "Each scenario ran on a whole machine with the real daemons and a real container engine, under a "
            "steady load: the page is asked every 50 ms, and the crawler has rows on their way all the time. "
            "Servers of Google and of the markets are doubles. Times are measured, nothing is estimated. Away: "
            "all the seconds in which the page did not answer, from the fault on. Page there: its share of a time "
            "that is the same in each run of a scenario, from the fault for as long as it is made to last and 30 "
            "s more; so it does not depend on how long one looked. A scenario holds only if something shows that "
            "its fault struck.",
        "summary": "{ok} of {n} scenarios held. Rows lost: {lost}. Rows doubled: {doubled}. Seed {seed}.",
        "scenario": "Scenario", "recovery": "Recovery", "availability": "Page there", "away": "Away",
        "reaction": "Noticed after", "rows": "Rows complete after", "lost": "Lost", "doubled": "Doubled",
        "verdict": "Verdict", "held": "held", "failed": "FAILED", "never": "never", "none": "–",
        "symptom": "What you see", "heals": "What heals itself", "time": "Measured", "command": "For the rest",
        "runbook": "Runbook", "page": "page", "status": "status", "fault": "fault", "well": "well",
        "degraded": "degraded", "silent": "no answer", "away_key": "away", "drawn": "Drawn",
        "proof": "What shows that it struck", "unproven": "nothing: it was not struck",
        "measured": "page away for {away}, there {availability} of the {window} from the fault; well again {recovery} "
                    "after the fault's end; rows complete after {rows}",
        "chart": "Seconds from the end of the fault until all was well",
        "heads": ["", "well after", "away", "page", "noticed", "rows", "lost", "doubled", ""],
    },
    "ko": {
        "title": "mervis-agent 장애 주입 시험 보고서",
        "intro":
            "모든 시나리오는 실제 데몬과 실제 컨테이너 엔진이 동작하는 머신에서 일정한 부하를 주며 실행했습니다. 페이지는 "
            "50 ms마다 요청하고, 크롤러에는 항상 전송할 행이 있습니다. Google 서버와 시세 서버는 모의 서버입니다. 모든 시간은 "
            "측정값이며 추정치는 없습니다. 중단 시간은 장애 발생 이후 페이지가 응답하지 않은 시간의 합계입니다. 페이지 응답률은 "
            "장애 발생 시점부터 정해진 장애 지속 시간에 30초를 더한 구간에서 계산하므로, 관찰 시간의 길이에 영향을 받지 "
            "않습니다. 장애가 실제로 발생했다는 증거가 있어야만 통과로 판정합니다.",
        "summary": "시나리오 {n}개 중 {ok}개 통과. 유실된 행 {lost}개, 중복된 행 {doubled}개. 시드 {seed}.",
        "scenario": "시나리오", "recovery": "복구 시간", "availability": "페이지 응답률", "away": "중단 시간",
        "reaction": "감지 시간", "rows": "행 수신 완료", "lost": "유실", "doubled": "중복",
        "verdict": "판정", "held": "통과", "failed": "실패", "never": "복구 안 됨", "none": "–",
        "symptom": "증상", "heals": "자동 복구", "time": "측정값", "command": "추가 조치 명령",
        "runbook": "런북", "page": "페이지", "status": "상태", "fault": "장애", "well": "정상",
        "degraded": "저하", "silent": "무응답", "away_key": "중단", "drawn": "발생 순서",
        "proof": "장애 발생 증거", "unproven": "없음: 장애가 발생하지 않음",
        "measured": "페이지 중단 {away}, 장애 발생 후 {window} 동안의 응답률 {availability}; 장애 종료 후 복구까지 {recovery}; "
                    "행 수신 완료까지 {rows}",
        "chart": "장애 종료 후 정상 상태로 복구될 때까지 걸린 시간(초)",
        "heads": ["", "복구", "중단", "응답률", "감지", "행", "유실", "중복", ""],
    },
}
COLOURS = {"well": "#2a7", "degraded": "#e92", "silent": "#c33", True: "#2a7", False: "#c33"}


def seconds(value, none="–"):
    return none if value is None else f"{value:.1f} s"


def figures(found, words):
    """What is shown of a scenario, as texts. One that broke off has none of them."""
    return {
        "recovery": seconds(found.get("recovery"), words["never"]),
        "availability": f"{100 * found['availability']:.2f} %" if "availability" in found else words["none"],
        "away": seconds(found.get("away")), "reaction": seconds(found.get("reaction"), words["none"]),
        "window": f"{found['window']:.0f} s" if "window" in found else words["none"],
        "rows": seconds(found.get("rows_after")), "lost": str(found.get("lost", words["none"])),
        "doubled": str(found.get("doubled", words["none"])),
        "verdict": words["held" if found["ok"] else "failed"],
    }


def proofs(found, language):
    """What shows that the faults of a scenario struck, a text each."""
    return [f"{' '.join(map(str, one['step']))}: " + (PROOFS[one["proof"]][language].format(**one["figures"])
                                                     if one["proof"] else WORDS[language]["unproven"])
            for one in found.get("proofs", [])]


def line(found):
    texts = figures(found, WORDS["en"])
    return (f"{found['name']}: well after {texts['recovery']}, away {texts['away']} (page {texts['availability']}), "
            f"noticed after {texts['reaction']}, rows after {texts['rows']}: {texts['lost']} lost, "
            f"{texts['doubled']} doubled")


def width(text):
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)


def table(results, language="en"):
    """Columns for a terminal of 80."""
    words = WORDS[language]
    columns = ["scenario", "recovery", "away", "availability", "reaction", "rows", "lost", "doubled", "verdict"]
    rows = [words["heads"]]
    for found in results:
        texts = {"scenario": found["name"], **figures(found, words)}
        rows.append([texts[name] for name in columns])
    widths = [max(width(row[i]) for row in rows) for i in range(len(columns))]
    return "".join("  ".join(
        cell + " " * (widths[i] - width(cell)) if i in (0, len(columns) - 1) else " " * (widths[i] - width(cell)) + cell
        for i, cell in enumerate(row)).rstrip() + "\n" for row in rows)


def summary(results, words):
    return words["summary"].format(
        ok=sum(one["ok"] for one in results), n=len(results), lost=sum(one.get("lost") or 0 for one in results),
        doubled=sum(one.get("doubled") or 0 for one in results),
        seed=", ".join(sorted({str(one["seed"]) for one in results})))


def bars(results, words):
    """Recovery times side by side."""
    known = [one for one in results if one.get("recovery") is not None]
    top = max([one["recovery"] for one in known] + [1.0])
    out = []
    for i, one in enumerate(known):
        y, length = 20 * i, 500 * one["recovery"] / top
        out.append(f'<text x="150" y="{y + 13}" text-anchor="end">{one["name"]}</text>'
                   f'<rect x="160" y="{y + 3}" width="{max(length, 1):.1f}" height="13" fill="#48c"/>'
                   f'<text x="{165 + length:.1f}" y="{y + 13}">{one["recovery"]:.1f}</text>')
    chart = html.escape(words["chart"])
    return (f'<figure><svg viewBox="0 0 720 {20 * len(known) + 4}" role="img" aria-label="{chart}">'
            f'{"".join(out)}</svg><figcaption>{chart}</figcaption></figure>')


def timeline(found, words):
    """The page and the machine's own word over time; the time of the fault is shaded."""
    if "page" not in found:
        return ""
    end = max(found["length"], 0.1)

    def x(at):
        return 60 + 640 * at / end
    out = [f'<rect x="{x(found["struck"]):.1f}" y="0" width="{max(x(found["ended"]) - x(found["struck"]), 2):.1f}" '
           f'height="62" fill="#fdd"/>']
    for name, y in (("page", 8), ("said", 34)):
        label = words["page"] if name == "page" else words["status"]
        out.append(f'<text x="54" y="{y + 14}" text-anchor="end">{label}</text>')
        out += [f'<rect x="{x(begin):.1f}" y="{y}" width="{max(x(stop) - x(begin), 0.5):.1f}" height="18" '
                f'fill="{COLOURS[value]}"/>' for begin, stop, value in found[name]]
    step = next(s for s in (1, 2, 5, 10, 20, 60, 120, 300) if end / s <= 12)
    out += [f'<text x="{x(at):.1f}" y="76" text-anchor="middle">{at}</text>' for at in range(0, int(end) + 1, step)]
    key = [(words["well"], "#2a7"), (words["degraded"], "#e92"), (f'{words["silent"]}/{words["away_key"]}', "#c33"),
           (words["fault"], "#fdd")]
    out += [f'<rect x="{60 + 130 * i}" y="84" width="10" height="10" fill="{colour}"/>'
            f'<text x="{74 + 130 * i}" y="93">{text}</text>' for i, (text, colour) in enumerate(key)]
    return f'<svg viewBox="0 0 720 98" role="img" aria-label="{html.escape(found["name"])}">{"".join(out)}</svg>'


STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse;width:100%;font-size:13px}
td,th{padding:.25rem .5rem;border-bottom:1px solid #ddd;text-align:right}td:first-child,th:first-child{text-align:left}
section{margin:2rem 0;border-top:1px solid #ccc}svg{width:100%;font-size:11px}
dt{font-weight:600}dd{margin:0 0 .4rem 0}.bad{color:#c33;font-weight:600}code{background:#f3f3f3;padding:0 .2rem}
@media (prefers-color-scheme:dark){body{background:#181818;color:#ddd}svg text{fill:#ddd}
code{background:#333}td,th{border-color:#444}}"""


def section(found, text, language):
    title, symptom, heals, command = text
    words = WORDS[language]
    texts = figures(found, words)
    drawn = ""
    if found.get("drawn"):
        steps = ", ".join(" ".join(str(word) for word in step) for step in found["drawn"])
        drawn = f"<dt>{words['drawn']}</dt><dd>{html.escape(steps)}</dd>"
    proved = "<br>".join(html.escape(text) for text in proofs(found, language)) or words["none"]
    faults = "".join(f'<p class="bad">{html.escape(fault)}</p>' for fault in found["faults"])
    return f"""<section id="{found['name']}"><h3>{html.escape(title)} <small>{found['name']}</small></h3>{faults}
{timeline(found, words)}<dl>
<dt>{words['symptom']}</dt><dd>{html.escape(symptom)}</dd><dt>{words['heals']}</dt><dd>{html.escape(heals)}</dd>
<dt>{words['time']}</dt><dd>{html.escape(words['measured'].format(**texts))}</dd>{drawn}
<dt>{words['proof']}</dt><dd>{proved}</dd>
<dt>{words['command']}</dt><dd><code>{html.escape(command)}</code></dd></dl></section>"""


def page(results, texts, language):
    """One file without anything from elsewhere."""
    words = WORDS[language]
    columns = ("away", "recovery", "availability", "reaction", "rows", "lost", "doubled", "verdict")
    names = {one["name"]: f"{texts[one['text']][language][0]} ({one['name']})" for one in results}
    head = "".join(f"<th>{words[name]}</th>" for name in ("scenario", *columns))
    body = ""
    for found in results:
        cells = figures(found, words)
        body += f'<tr><td><a href="#{found["name"]}">{html.escape(names[found["name"]])}</a></td>' + "".join(
            f'<td{"" if found["ok"] or name != "verdict" else " class=bad"}>{cells[name]}</td>'
            for name in columns) + "</tr>\n"
    sections = "\n".join(section(found, texts[found["text"]][language], language) for found in results)
    return f"""<!DOCTYPE html>
<html lang="{language}"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{words['title']}</title><style>{STYLE}</style></head><body>
<h1>{words['title']}</h1><p>{words['intro']}</p><p><strong>{summary(results, words)}</strong></p>
<table><thead><tr>{head}</tr></thead><tbody>
{body}</tbody></table>
{bars(results, words)}
<h2>{words['runbook']}</h2>
{sections}
</body></html>
"""


def write(results, texts, directory):
    directory.mkdir(parents=True, exist_ok=True)
    for language in LANGUAGES:
        (directory / f"chaos.{language}.html").write_text(page(results, texts, language), encoding="utf-8")
        (directory / f"chaos.{language}.txt").write_text(
            table(results, language) + summary(results, WORDS[language]) + "\n", encoding="utf-8")
