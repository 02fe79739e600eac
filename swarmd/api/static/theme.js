// Runs before the first paint (a classic script in <head>), so a chosen theme never flashes the other one.
"use strict";
{
  const chosen = localStorage.getItem("swarmd-theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
}
