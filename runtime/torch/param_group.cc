#include "millrace/runtime/torch/param_group.h"

#include <utility>

namespace millrace {
namespace {

using Pair = std::array<double*, 2>;

pickle::Value read(double* place) { return *place; }
pickle::Value read(bool* place) { return *place; }
pickle::Value read(const Pair& places) { return pickle::Value::tuple({*places[0], *places[1]}); }
pickle::Value read(const pickle::Value& value) { return value; }

void write(double* place, const pickle::Value& value) {
  *place = value.as_double().value_or(*place);
}
void write(bool* place, const pickle::Value& value) { *place = value.as_bool().value_or(*place); }
void write(const Pair& places, const pickle::Value& value) {
  const auto* items = value.as_sequence();
  if (items == nullptr || items->size() != places.size()) return;
  for (std::size_t i = 0; i < places.size(); ++i) write(places[i], (*items)[i]);
}
void write(const pickle::Value&, const pickle::Value&) {}

}  // namespace

ParamGroup& ParamGroup::number(std::string_view name, double& value) {
  entries_.push_back({name, &value});
  return *this;
}
ParamGroup& ParamGroup::pair(std::string_view name, double& first, double& second) {
  entries_.push_back({name, Pair{&first, &second}});
  return *this;
}
ParamGroup& ParamGroup::flag(std::string_view name, bool& value) {
  entries_.push_back({name, &value});
  return *this;
}
ParamGroup& ParamGroup::fixed(std::string_view name, pickle::Value value) {
  entries_.push_back({name, std::move(value)});
  return *this;
}

pickle::Value ParamGroup::save() const {
  pickle::Value group = pickle::Value::dict();
  for (const Entry& entry : entries_) {
    group.set(entry.name, std::visit([](const auto& place) { return read(place); }, entry.place));
  }
  return group;
}

void ParamGroup::load(const pickle::Value& group) {
  for (const Entry& entry : entries_) {
    const pickle::Value* const found = group.find(entry.name);
    if (found == nullptr) continue;
    std::visit([&](const auto& place) { write(place, *found); }, entry.place);
  }
}

}  // namespace millrace
