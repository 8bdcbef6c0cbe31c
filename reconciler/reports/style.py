"""The page's style: system fonts, both colour schemes, and paper."""

STYLE = """
:root{--bg:#f6f7f9;--card:#fff;--ink:#1b1f24;--quiet:#5b6470;--line:#d9dee5;
--clean:#1a7f4b;--drifted:#c2410c;--unknown:#6b7280;--stalled:#7c3aed;--paused:#1d5fbf}
@media (prefers-color-scheme:dark){:root{--bg:#12151a;--card:#1b2027;--ink:#e7eaee;--quiet:#9aa4b1;--line:#323a45;
--clean:#4ade80;--drifted:#fb923c;--unknown:#9ca3af;--stalled:#c4a3ff;--paused:#7db4ff}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:70rem;margin:0 auto;padding:2rem 1.25rem 4rem}
h1{font-size:1.6rem;margin:0;display:flex;gap:.75rem;align-items:center;flex-wrap:wrap}
h2{font-size:1.1rem;margin:2rem 0 .75rem}
h3{font-size:1rem;margin:0 0 .5rem;overflow-wrap:anywhere}
small,.quiet{color:var(--quiet);font-weight:400}
.quiet{margin:.25rem 0 0}
.headline{font-size:1.1rem;margin:1rem 0}
.pill{font-size:.8rem;font-weight:600;padding:.15rem .7rem;border-radius:1rem;border:1.5px solid;line-height:1.5}
.pill.clean,.tiles .clean b{color:var(--clean)}
.pill.drifted,.tiles .drifted b{color:var(--drifted)}
.pill.unknown,.tiles .unknown b{color:var(--unknown)}
.tiles .paused b,.tiles .waiting b{color:var(--paused)}
.tiles .stalled b{color:var(--stalled)}
.bar{display:flex;height:.6rem;border-radius:.3rem;overflow:hidden;background:var(--line);gap:1px}
.bar span{min-width:4px}
.bar .clean{background:var(--clean)}
.bar .drifted{background:var(--drifted)}
.bar .unknown{background:var(--unknown)}
.bar .stalled{background:var(--stalled)}
.tiles{list-style:none;display:flex;flex-wrap:wrap;gap:.25rem 1.75rem;padding:0;margin:1rem 0 0}
.tiles b{font-size:1.25rem;font-variant-numeric:tabular-nums}
.tiles .none{color:var(--quiet)}
section ul{margin:.5rem 0 0;padding-left:1.2rem}
li{overflow-wrap:anywhere}
.news{list-style:none;padding-left:0}
.news li{padding:.2rem 0;border-bottom:1px solid var(--line);display:flex;gap:.6rem}
.news b{flex:none}
.news .new b:first-child,.news .changed b:first-child{color:var(--drifted)}
.news .gone b:first-child{color:var(--clean)}
.card{background:var(--card);border:1px solid var(--line);border-left:4px solid var(--unknown);border-radius:.4rem;
padding:.9rem 1rem;margin:0 0 .75rem;break-inside:avoid}
.card.drifted{border-left-color:var(--drifted)}
.card.clean{border-left-color:var(--clean)}
.card.stalled{border-left-color:var(--stalled)}
table{width:100%;border-collapse:collapse;font-size:.9rem}
th{white-space:nowrap;text-align:left;color:var(--quiet);font-weight:500}
th,td{padding:.35rem .75rem .35rem 0;vertical-align:top;border-bottom:1px solid var(--line);overflow-wrap:anywhere}
tr:last-child td{border-bottom:0}
th:first-child{width:28%}
th:nth-child(2),th:nth-child(3){width:11%;min-width:7.5rem}
th:nth-child(4){width:17%;min-width:10.5rem}
td small{display:block}
code{font:.9em ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;overflow-wrap:anywhere}
details{margin-top:2rem}
summary{cursor:pointer;font-weight:600}
.names{line-height:2}
.names code{background:var(--card);border:1px solid var(--line);border-radius:.3rem;padding:.1rem .4rem;
white-space:nowrap}
@media (max-width:40rem){thead{display:none}tr,td{display:block}td{border:0;padding:.1rem 0}
td::before{content:attr(data-label) ": ";color:var(--quiet)}td small{display:inline}.news li{display:block}
tr{border-bottom:1px solid var(--line);padding:.4rem 0}}
@media print{:root{--bg:#fff;--card:#fff;--ink:#000;--quiet:#444;--line:#bbb;
--clean:#1a7f4b;--drifted:#b03a06;--unknown:#555;--stalled:#5b21b6;--paused:#1d4f9f}
main{max-width:none;padding:0}body{font-size:10.5pt}.bar{print-color-adjust:exact;-webkit-print-color-adjust:exact}}
"""
