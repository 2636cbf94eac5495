// Before anything is drawn, so that no page flashes in the other colours.
try {
  const chosen = localStorage.getItem("trailsift.theme");
  if (chosen === "dark" || chosen === "light") document.documentElement.dataset.theme = chosen;
} catch { /* no storage: the system's colours */ }
