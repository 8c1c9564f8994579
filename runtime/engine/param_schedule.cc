#include "millrace/runtime/engine/param_schedule.h"

#include <utility>

#include "millrace/runtime/async/error.h"

namespace millrace {
namespace {

pickle::Value number_list(const std::vector<double>& values) {
  pickle::Value list = pickle::Value::list();
  for (const double value : values) list.append(value);
  return list;
}

std::vector<double> numbers(const pickle::Value* list) {
  std::vector<double> values;
  const auto* items = list != nullptr ? list->as_sequence() : nullptr;
  if (items == nullptr) return values;
  for (const pickle::Value& item : *items) values.push_back(item.as_double().value_or(0));
  return values;
}

template <class T>
T number_or(const pickle::Value& state, const char* key, T fallback) {
  const pickle::Value* found = state.find(key);
  if (found == nullptr) return fallback;
  return static_cast<T>(found->as_double().value_or(static_cast<double>(fallback)));
}

class LinearLr final : public ParamSchedule {
 public:
  explicit LinearLr(LinearLrOptions options) : ParamSchedule(options.span), options_(options) {
    const auto valid = [](double factor) { return factor >= 0 && factor <= 1; };
    if (!valid(options.start_factor) || options.start_factor == 0) {
      throw ConfigError("param_scheduler.start_factor", "must be above 0 and at most 1, got " +
                                                            std::to_string(options.start_factor));
    }
    if (!valid(options.end_factor)) {
      throw ConfigError("param_scheduler.end_factor",
                        "must be between 0 and 1, got " + std::to_string(options.end_factor));
    }
  }

 protected:
  double next(double current) const override {
    if (last_step() == 0) return current * options_.start_factor;
    const double rise = options_.end_factor - options_.start_factor;
    const auto steps = static_cast<double>(total_iters());
    const auto done = static_cast<double>(last_step() - 1);
    return current * (1 + rise / (steps * options_.start_factor + done * rise));
  }
  void save_parameters(pickle::Value& state) const override {
    state.set("start_factor", options_.start_factor);
    state.set("end_factor", options_.end_factor);
    state.set("total_iters", total_iters());
  }
  void load_parameters(const pickle::Value& state) override {
    options_.start_factor = number_or(state, "start_factor", options_.start_factor);
    options_.end_factor = number_or(state, "end_factor", options_.end_factor);
  }

 private:
  std::int64_t total_iters() const { return span().end - span().begin - 1; }
  LinearLrOptions options_;
};

}  // namespace

ParamSchedule::ParamSchedule(ScheduleSpan span) : span_(span) {
  if (span.end <= span.begin) {
    throw ConfigError("param_scheduler.end",
                      "should be larger than begin, but got begin=" + std::to_string(span.begin) +
                          ", end=" + std::to_string(span.end));
  }
}

void ParamSchedule::start(std::span<double> values) {
  base_values_.assign(values.begin(), values.end());
  step(values);
}

void ParamSchedule::step(std::span<double> values) {
  ++global_step_;
  if (span_.begin <= global_step_ && global_step_ < span_.end) {
    ++last_step_;
    for (double& value : values) value = next(value);
  }
  last_values_.assign(values.begin(), values.end());
}

pickle::Value ParamSchedule::save() const {
  pickle::Value state = pickle::Value::dict();
  state.set("param_name", "lr");
  state.set("begin", span_.begin);
  state.set("end", span_.end);
  state.set("by_epoch", span_.by_epoch);
  state.set("base_values", number_list(base_values_));
  state.set("last_step", last_step_);
  state.set("_global_step", global_step_);
  state.set("verbose", false);
  state.set("_last_value", number_list(last_values_));
  save_parameters(state);
  return state;
}

std::string ParamSchedule::load(const pickle::Value& state) {
  if (state.as_mapping() == nullptr) return "is no mapping";
  for (const char* key : {"last_step", "_global_step"}) {
    if (state.find(key) == nullptr) return std::string("lacks the key '") + key + "'";
  }
  last_step_ = number_or(state, "last_step", last_step_);
  global_step_ = number_or(state, "_global_step", global_step_);
  base_values_ = numbers(state.find("base_values"));
  last_values_ = numbers(state.find("_last_value"));
  span_.begin = number_or(state, "begin", span_.begin);
  span_.end = number_or(state, "end", span_.end);
  load_parameters(state);
  return {};
}

std::unique_ptr<ParamSchedule> linear_lr(LinearLrOptions options) {
  return std::make_unique<LinearLr>(options);
}

ParamSchedules::ParamSchedules(std::vector<std::unique_ptr<ParamSchedule>> schedules)
    : schedules_(std::move(schedules)) {}

void ParamSchedules::start(std::span<double> values) {
  if (std::exchange(started_, true)) return;
  for (auto& schedule : schedules_) schedule->start(values);
}

void ParamSchedules::step(bool by_epoch, std::span<double> values) {
  for (auto& schedule : schedules_) {
    if (schedule->by_epoch() == by_epoch) schedule->step(values);
  }
}

pickle::Value ParamSchedules::save() const {
  pickle::Value list = pickle::Value::list();
  for (const auto& schedule : schedules_) list.append(schedule->save());
  return list;
}

void ParamSchedules::load(const pickle::Value& states, const std::string& path) {
  const auto* items = states.as_sequence();
  const std::size_t saved = items != nullptr ? items->size() : 0;
  if (saved != schedules_.size()) {
    throw CheckpointError(path, "holds " + std::to_string(saved) +
                                    " parameter schedules, this run has " +
                                    std::to_string(schedules_.size()));
  }
  for (std::size_t i = 0; i < saved; ++i) {
    const std::string problem = schedules_[i]->load((*items)[i]);
    if (!problem.empty()) {
      throw CheckpointError(path, "param_schedulers[" + std::to_string(i) + "] " + problem);
    }
  }
}

}  // namespace millrace
