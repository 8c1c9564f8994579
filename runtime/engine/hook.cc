#include "millrace/runtime/engine/hook.h"

#include <algorithm>
#include <utility>

#include "millrace/runtime/async/error.h"

namespace millrace {

Hook& HookList::add(std::unique_ptr<Hook> hook, HookOptions options) {
  const std::string name(hook->name());
  if (closed_) throw ConfigError("hooks." + name, "added after training started");
  if (find(name) != nullptr) {
    throw ConfigError("hooks." + name, "a hook of this name is already there; give one of them " +
                                           std::string("another name, or remove the first"));
  }
  Entry entry{std::move(hook), Priority::kNormal, nullptr};
  entry.priority = options.priority.value_or(entry.hook->priority());
  const Isolation isolation = options.isolation.value_or(entry.hook->isolation());
  if (isolation.isolated()) entry.isolated = std::make_shared<IsolatedHook>(name, isolation);
  const auto place = std::upper_bound(
      entries_.begin(), entries_.end(), entry.priority.value(),
      [](int value, const Entry& other) { return value < other.priority.value(); });
  return *entries_.insert(place, std::move(entry))->hook;
}

bool HookList::remove(std::string_view name) {
  if (closed_) throw ConfigError("hooks." + std::string(name), "removed after training started");
  return std::erase_if(entries_, [&](const Entry& e) { return e.hook->name() == name; }) > 0;
}

Hook* HookList::find(std::string_view name) const {
  for (const Entry& entry : entries_) {
    if (entry.hook->name() == name) return entry.hook.get();
  }
  return nullptr;
}

std::vector<HookErrors> HookList::errors() const {
  std::vector<HookErrors> rows;
  for (const Entry& entry : entries_) {
    if (entry.isolated) rows.push_back(entry.isolated->errors());
  }
  return rows;
}

std::string HookList::table() const {
  std::string text = "Hooks will be executed in the following order:";
  for (const Entry& entry : entries_) {
    std::string level = entry.priority.name();
    level.resize(std::max<std::size_t>(level.size(), 12), ' ');
    text += "\n(" + level + ") " + std::string(entry.hook->name());
  }
  return text;
}

}  // namespace millrace
