"use strict";
(() => {
  const search = document.getElementById("search");
  const rows = [...document.querySelectorAll(".matrix .row")];
  const words = rows.map((row) => row.querySelector("th").textContent.toLowerCase());
  search.parentElement.hidden = false;
  search.addEventListener("input", () => {
    const wanted = search.value.trim().toLowerCase();
    rows.forEach((row, at) => { row.hidden = !words[at].includes(wanted); });
  });
  const checks = [...document.querySelectorAll("details.check")];
  const bad = checks.filter((check) => check.matches(".fail, .error, .flaky, .unproven"));
  let at = -1;
  const open = (check) => {
    check.open = true;
    check.scrollIntoView();
    check.querySelector("summary").focus();
  };
  const reveal = () => {
    const target = location.hash && document.getElementById(location.hash.slice(1));
    const check = target && target.closest("details.check");
    if (check) open(check);
  };
  addEventListener("hashchange", reveal);
  reveal();
  addEventListener("keydown", (event) => {
    if (event.target.matches("input") || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "/") { event.preventDefault(); search.focus(); }
    if ((event.key === "n" || event.key === "p") && bad.length) {
      at = (at + (event.key === "n" ? 1 : bad.length - 1) + (at < 0 && event.key === "p" ? 1 : 0)) % bad.length;
      open(bad[at]);
    }
  });
  addEventListener("beforeprint", () => bad.forEach((check) => { check.open = true; }));
})();
