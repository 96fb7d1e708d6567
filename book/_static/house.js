/* The theme lets the keyboard reach what scrolls, and looks for it only when the window changes its size. What is
   unfolded later is looked at again. */
document.addEventListener("toggle", () => window.dispatchEvent(new Event("resize")), true);

/* The theme's arrows that unfold the pages of a section have no name. */
document.addEventListener("DOMContentLoaded", () => {
  for (const arrow of document.querySelectorAll(".has-children > details > summary")) {
    const page = arrow.closest(".has-children").querySelector("a");
    arrow.setAttribute("aria-label", `Pages of ${page.textContent.trim()}`);
  }
});

/* Parameters of long signatures stand in a list without terms, for their lines only; the bibliography calls itself a
   list, and its entries call themselves something else. */
document.addEventListener("DOMContentLoaded", () => {
  for (const lines of document.querySelectorAll("dt.sig > dl")) lines.setAttribute("role", "presentation");
  for (const entries of document.querySelectorAll(".citation-list")) entries.removeAttribute("role");
});
