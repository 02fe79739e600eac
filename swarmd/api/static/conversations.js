// Conversations, kept in this browser alone (localStorage), newest first. Bounded: old ones go when there is no room.

const STORED = "swarmd-conversations";
const MOST = 30;
const MOST_BYTES = 2_000_000; // browsers give a page 5 MB

const isMessage = (one) => (one?.role === "user" || one?.role === "assistant") && typeof one.content === "string";

function read() {
  try {
    const kept = JSON.parse(localStorage.getItem(STORED) ?? "[]");
    return Array.isArray(kept) ? kept.filter((one) => typeof one?.id === "string" && Array.isArray(one.messages) && one.messages.every(isMessage)) : [];
  } catch {
    return []; // not ours, or the browser keeps nothing
  }
}

function write(all) {
  let kept = all.slice(0, MOST);
  for (;;) {
    const text = JSON.stringify(kept);
    try {
      if (text.length <= MOST_BYTES) {
        localStorage.setItem(STORED, text);
        return;
      }
    } catch {
      // full, or forbidden: with fewer it may fit
    }
    if (!kept.length) return;
    kept = kept.slice(0, -1);
  }
}

export const conversations = read;

export function keepConversation(conversation) {
  write([conversation, ...read().filter(({ id }) => id !== conversation.id)]);
}

export function forgetConversation(id) {
  write(read().filter((one) => one.id !== id));
}

export const newConversation = () => ({ id: crypto.randomUUID?.() ?? `${Date.now()}-${Math.random()}`, at: Date.now(), model: "", messages: [] });

/** The first question, short. */
export function titleOf({ messages }) {
  const first = messages.find(({ role }) => role === "user")?.content.trim().replaceAll(/\s+/g, " ") ?? "New chat";
  return first.length > 48 ? `${first.slice(0, 47)}…` : first;
}
