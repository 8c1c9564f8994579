#include "millrace/runtime/engine/message_hub.h"

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "millrace/io/record_stream.h"

namespace millrace {

HistoryBuffer& MessageHub::scalar(std::string_view name) {
  if (const auto found = by_name_.find(name); found != by_name_.end()) return *found->second;
  scalars_.push_back({std::string(name), HistoryBuffer(max_history_)});
  by_name_.emplace(name, &scalars_.back().history);
  return scalars_.back().history;
}

const HistoryBuffer* MessageHub::find_scalar(std::string_view name) const {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : found->second;
}

void MessageHub::expect(HistoryBuffer& history, const Scalar& number, std::int64_t iter) {
  expected_.push_back({&history, number, iter});
}

void MessageHub::take_arrived(std::int64_t iter) {
  auto next = expected_.begin();
  for (; next != expected_.end(); ++next) {
    if (iter - next->iter >= ScalarSource::kKept) continue;
    const auto value = next->number.try_get();
    if (!value) break;
    next->history->update(*value);
  }
  expected_.erase(expected_.begin(), next);
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
    std::vector<std::pair<std::string, std::vector<HistoryBuffer::Entry>>> scalars;
    for (std::size_t n = in.count(3 * sizeof(std::uint64_t)); n > 0; --n) {
      std::vector<double> values;
      std::vector<double> counts;
      auto& [name, entries] = scalars.emplace_back();
      in(name, values, counts);
      if (values.size() != counts.size()) throw RecordError("counts and values differ in number");
      for (std::size_t k = 0; k < values.size(); ++k) entries.push_back({values[k], counts[k]});
    }
    if (!in.finished()) throw RecordError("the record goes on after its last scalar");
    for (const auto& [name, entries] : scalars) scalar(name).assign(entries);
    return std::monostate{};
  } catch (const RecordError& error) {
    return Fault{Fault::Kind::corrupt, "hub", error.what()};
  }
}

}  // namespace millrace
