// Questions to the API. An error has a title, what failed, and what to do, in the reader's language.
import { session } from "./state.js";
import { t } from "./texts.js";

export class ApiError extends Error {
  constructor(status, error) {
    super(error.message);
    Object.assign(this, { status, code: error.code, title: error.title, toDo: error.to_do });
  }
}

export async function ask(path, params, signal) {
  return answer(await reach(`/api/v1/${path}?${params}`, { signal }));
}

export async function change(path, values) {
  const headers = { "content-type": "application/json", "x-trailsift-csrf": session.csrf ?? "" };
  const lang = document.documentElement.lang;
  return answer(await reach(`/api/v1/${path}?lang=${lang}`, { method: "POST", headers, body: JSON.stringify(values) }));
}

async function reach(url, options) {
  try {
    return await fetch(url, { credentials: "same-origin", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, { code: "unreachable", title: t("error.unreachable"), message: "", to_do: t("error.unreachable.to_do") });
  }
}

async function answer(response) {
  const found = await response.json().catch(() => null);
  if (response.ok && found !== null) return found;
  const error = found?.error ?? { code: "defect", title: t("error.defect"), message: `HTTP ${response.status}`, to_do: t("error.defect.to_do") };
  if (response.status === 401) dispatchEvent(new Event("trailsift:token"));
  throw new ApiError(response.status, error);
}
