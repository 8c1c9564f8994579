#include "millrace/runtime/device/stream_timeline.h"

namespace millrace {

StreamTimeline::StreamTimeline(DeviceStream& stream)
    : stream_(stream), start_(stream.device().make_event(EventUse::kTiming)) {
  while (pairs_.size() < kInFlight) {
    Device& device = stream.device();
    pairs_.push_back(
        {device.make_event(EventUse::kTiming), device.make_event(EventUse::kTiming), 0});
  }
  stream_.record(*start_);
  known_ = start_.get();
  known_time_ = std::chrono::steady_clock::now();
}

void StreamTimeline::begin(std::int64_t number) {
  end();
  // One pair stays behind: the times that follow are counted from it.
  if (begun_ - taken_ + 1 == kInFlight) return;
  Pair& pair = at(begun_);
  pair.number = number;
  stream_.record(*pair.first);
  open_ = true;
}

void StreamTimeline::end() {
  if (!open_) return;
  stream_.record(*at(begun_).last);
  ++begun_;
  open_ = false;
}

std::chrono::steady_clock::time_point StreamTimeline::time_of(const DeviceEvent& event) {
  known_time_ += event.since(*known_);
  known_ = &event;
  return known_time_;
}

void StreamTimeline::take(std::vector<StreamSpan>& spans) {
  for (; taken_ < begun_ && at(taken_).last->done(); ++taken_) {
    const Pair& pair = at(taken_);
    const auto first = time_of(*pair.first);
    const auto last = time_of(*pair.last);
    spans.push_back({pair.number, first, last});
  }
}

const DeviceEvent* StreamTimeline::newest() const {
  return taken_ < begun_ ? at(begun_ - 1).last.get() : nullptr;
}

}  // namespace millrace
