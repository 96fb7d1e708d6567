/* The theme lets the keyboard reach what scrolls, and looks for it only when the window changes its size. What is
   unfolded later is looked at again. */
document.addEventListener("toggle", () => window.dispatchEvent(new Event("resize")), true);
