// SpanFileHook: a file drawn from the spans of a run, written when the run ends; not at all when no
// step began, so that a failed start keeps the earlier file. How it is drawn is the derived hook's.
//
// It holds the newest `max_spans` spans; that there were more is logged. A file that cannot be
// written is a warning. Train context.
#pragma once

#include <cstddef>
#include <filesystem>
#include <iosfwd>
#include <string>
#include <utility>

#include "millrace/hooks/span_recorder.h"
#include "millrace/runtime/engine/hook.h"

namespace millrace {

class SpanFileHook : public Hook {
 public:
  Priority priority() const override { return Priority::kHighest; }
  void attach(RunContext& run) override;
  void subscribe(Subscriptions& on) override;

 protected:
  // `file` relative: below the work dir. `what` is for messages: "trace".
  SpanFileHook(std::filesystem::path file, std::size_t max_spans, std::string what)
      : file_(std::move(file)), what_(std::move(what)), recorder_(max_spans) {}

 private:
  virtual void draw(std::ostream& out, const SpanRecorder& recorder,
                    const std::string& run_name) const = 0;
  void write() const;

  std::filesystem::path file_;
  const std::string what_;
  RunContext* run_ = nullptr;
  SpanRecorder recorder_;
};

}  // namespace millrace
