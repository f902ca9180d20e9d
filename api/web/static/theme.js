// Before the first paint: the colours that were chosen here.
{
  let chosen = null;
  try {
    chosen = localStorage.getItem("fda-theme");
  } catch {
    // Without storage the system's colours are right.
  }
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
}
