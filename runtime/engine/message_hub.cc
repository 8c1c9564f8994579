#include "millrace/runtime/engine/message_hub.h"

#include <cstdint>
#include <vector>

#include "millrace/runtime/engine/record_stream.h"

namespace millrace {

HistoryBuffer& MessageHub::scalar(std::string_view name) {
  if (const auto found = by_name_.find(name); found != by_name_.end()) return *found->second;
  scalars_.push_back({std::string(name), HistoryBuffer()});
  by_name_.emplace(name, &scalars_.back().history);
  return scalars_.back().history;
}

const HistoryBuffer* MessageHub::find_scalar(std::string_view name) const {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : found->second;
}

pickle::Value& MessageHub::info(std::string_view name) {
  if (const auto found = info_.find(name); found != info_.end()) return found->second;
  return info_.emplace(name, pickle::Value()).first->second;
}

const pickle::Value* MessageHub::find_info(std::string_view name) const {
  const auto found = info_.find(name);
  return found == info_.end() ? nullptr : &found->second;
}

void MessageHub::pop_info(std::string_view name) {
  if (const auto found = info_.find(name); found != info_.end()) info_.erase(found);
}

pickle::Value MessageHub::python_state() const {
  pickle::Value info = pickle::Value::ordered_dict();
  pickle::Value resumed = pickle::Value::ordered_dict();
  for (const auto& [name, value] : info_) {
    info.set(name, pickle::deep_copy(value));
    resumed.set(name, true);
  }
  pickle::Value hub = pickle::Value::dict();
  hub.set("log_scalars", pickle::Value::ordered_dict());
  hub.set("runtime_info", std::move(info));
  hub.set("resumed_keys", std::move(resumed));
  return hub;
}

void MessageHub::load_python_state(const pickle::Value& hub) {
  const pickle::Value* info = hub.find("runtime_info");
  const auto* pairs = info != nullptr ? info->as_mapping() : nullptr;
  if (pairs == nullptr) return;
  for (const auto& [key, value] : *pairs) {
    if (const std::string* name = key.as_string()) this->info(*name) = value;
  }
}

std::string MessageHub::save_history() const {
  RecordWriter out;
  out(static_cast<std::uint64_t>(scalars_.size()));
  for (const NamedScalar& scalar : scalars_) {
    std::vector<double> values;
    std::vector<double> counts;
    for (const auto& entry : scalar.history.newest(kSavedHistory)) {
      values.push_back(entry.value);
      counts.push_back(entry.count);
    }
    out(scalar.name, values, counts);
  }
  return std::move(out).take();
}

Result<std::monostate> MessageHub::load_history(std::string_view bytes) {
  try {
    RecordReader in(bytes);
    std::uint64_t scalars = 0;
    in(scalars);
    for (std::uint64_t i = 0; i < scalars; ++i) {
      std::string name;
      std::vector<double> values;
      std::vector<double> counts;
      in(name, values, counts);
      if (values.size() != counts.size()) throw RecordError("counts and values differ in number");
      std::vector<HistoryBuffer::Entry> entries;
      for (std::size_t k = 0; k < values.size(); ++k) entries.push_back({values[k], counts[k]});
      scalar(name).assign(entries);
    }
    return std::monostate{};
  } catch (const RecordError& error) {
    return Fault{Fault::Kind::corrupt, "hub", error.what()};
  }
}

}  // namespace millrace
