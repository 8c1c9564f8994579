// Learning-rate schedules: pure arithmetic, no tensors. Train context.
//
// The reference's chained form: each step computes the new values from the current ones, so several
// schedules multiply together, and construction performs one step. State is written with the
// reference's attribute names, so MMEngine resumes from our files.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "millrace/io/pickle_value.h"

namespace millrace {

struct ScheduleSpan {
  std::int64_t begin = 0;
  std::int64_t end = 1'000'000'000;
  bool by_epoch = true;
};

class ParamSchedule {
 public:
  // Throws ConfigError when end is not larger than begin.
  explicit ParamSchedule(ScheduleSpan span);
  virtual ~ParamSchedule() = default;

  bool by_epoch() const noexcept { return span_.by_epoch; }
  // Binds to the groups' values and performs the first step.
  void start(std::span<double> values);
  // Advances by one epoch or iteration and updates the values while begin <= step < end.
  void step(std::span<double> values);

  pickle::Value save() const;
  // Takes counters and parameters of a saved state. Returns an error sentence, empty when fine.
  std::string load(const pickle::Value& state);

 protected:
  // The new value of one group, from its current one. last_step() is 0 at the first active step.
  virtual double next(double current) const = 0;
  virtual void save_parameters(pickle::Value& state) const = 0;
  virtual void load_parameters(const pickle::Value& state) = 0;
  std::int64_t last_step() const noexcept { return last_step_; }
  const ScheduleSpan& span() const noexcept { return span_; }

 private:
  ScheduleSpan span_;
  std::int64_t global_step_ = -1;
  std::int64_t last_step_ = -1;
  std::vector<double> base_values_;
  std::vector<double> last_values_;
};

// From start_factor to end_factor of the initial value over [begin, end), then constant: a warm-up.
struct LinearLrOptions {
  double start_factor = 1.0 / 3;
  double end_factor = 1.0;
  ScheduleSpan span = {};
};
std::unique_ptr<ParamSchedule> linear_lr(LinearLrOptions options);

// All schedules of a run.
class ParamSchedules {
 public:
  explicit ParamSchedules(std::vector<std::unique_ptr<ParamSchedule>> schedules = {});
  bool empty() const noexcept { return schedules_.empty(); }
  void start(std::span<double> values);
  void step(bool by_epoch, std::span<double> values);

  pickle::Value save() const;  // a list, as the reference's param_schedulers
  // Throws CheckpointError(path) when the file's list does not fit.
  void load(const pickle::Value& states, const std::string& path);

 private:
  std::vector<std::unique_ptr<ParamSchedule>> schedules_;
  bool started_ = false;
};

}  // namespace millrace
