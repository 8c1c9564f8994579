// What a hook may use of the run it serves. Handed to Hook::attach(); valid as long as the hook.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "millrace/events/stage_events.h"

namespace millrace {

class Checkpointer;
class Clock;
class DataLoader;
class EventBus;
class Logger;
class LogProcessor;
class MessageHub;
class ParamSchedules;
class RunStates;
class StateGate;
class Strategy;

struct RunContext {
  const Progress& at;
  Strategy& strategy;
  MessageHub& hub;
  EventBus& bus;
  Logger& log;
  LogProcessor& log_processor;
  Checkpointer& checkpointer;
  StateGate& gate;  // stands before whoever writes captured tensors
  ParamSchedules& schedules;
  const Clock& clock;
  RunStates& states;         // of the user's objects; see run_states.h
  DataLoader* train_loader;  // null in a run that does not train
  DataLoader* val_loader;    // null in a run that does not validate
  std::filesystem::path work_dir;
  std::filesystem::path log_dir;  // work_dir/<timestamp>
  std::string run_name;
  std::uint64_t seed;
  std::string config_text;
  std::vector<std::string> metric_names;  // that validation will give; empty when not all are known
  std::function<void(std::string_view reason)> request_stop;  // any thread
  bool failed = false;  // train() is ending with an error: there is no state that could be saved
};

}  // namespace millrace
