#include "millrace/runtime/device/cpu_stream.h"

#include <algorithm>
#include <exception>
#include <stdexcept>
#include <string>
#include <utility>

#include "millrace/runtime/async/thread_name.h"
#include "millrace/runtime/device/cpu_device.h"
#include "millrace/runtime/device/device_error.h"
#include "millrace/runtime/device/pack.h"

namespace millrace {

class CpuEvent::Point {
 public:
  void reach(std::string failure) {
    const std::scoped_lock lock(mutex_);
    reached_ = true;
    time_ = std::chrono::steady_clock::now();
    failure_ = std::move(failure);
    changed_.notify_all();
  }
  bool reached() {
    const std::scoped_lock lock(mutex_);
    check("query");
    return reached_;
  }
  void wait() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return reached_; });
    check("wait");
  }
  std::chrono::steady_clock::time_point time() {
    const std::scoped_lock lock(mutex_);
    check("since");
    if (!reached_) throw std::logic_error("CpuEvent::since: a point that is not reached");
    return time_;
  }
  // For a stream: the failure, if there was one, is the device's and known already.
  void pass() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return reached_; });
  }

 private:
  void check(const char* call) const {
    if (!failure_.empty()) throw DeviceError(call, "cpu", 1, failure_, true);
  }
  std::mutex mutex_;
  std::condition_variable changed_;
  bool reached_ = false;
  std::chrono::steady_clock::time_point time_;
  std::string failure_;
};

std::shared_ptr<CpuEvent::Point> CpuEvent::point(std::string_view call) const {
  const std::scoped_lock lock(mutex_);
  if (!point_) throw std::logic_error(std::string(call) + ": the event was never recorded");
  return point_;
}

bool CpuEvent::done() const { return point("CpuEvent::done")->reached(); }
void CpuEvent::wait() const { point("CpuEvent::wait")->wait(); }

std::chrono::nanoseconds CpuEvent::since(const DeviceEvent& earlier) const {
  const auto& other = dynamic_cast<const CpuEvent&>(earlier);
  if (use_ != EventUse::kTiming || other.use_ != EventUse::kTiming) {
    throw std::logic_error("CpuEvent::since: an event that is not for timing");
  }
  return point("CpuEvent::since")->time() - other.point("CpuEvent::since")->time();
}

CpuStream::CpuStream(CpuDevice& device, std::uint32_t seed)
    : device_(device), random_(seed), thread_([this](const std::stop_token& stop) {
        name_this_thread("mr-stream");
        run(stop);
      }) {}

CpuStream::~CpuStream() = default;  // a jthread asks to stop and joins

Device& CpuStream::device() const noexcept { return device_; }

void CpuStream::record(DeviceEvent& event) {
  auto* const ours = dynamic_cast<CpuEvent*>(&event);
  if (ours == nullptr || &ours->device_ != &device_) {
    throw std::logic_error("CpuStream::record: the event is of another device");
  }
  auto point = std::make_shared<CpuEvent::Point>();
  {
    const std::scoped_lock lock(ours->mutex_);
    ours->point_ = point;
  }
  put({"record", [this, point] { point->reach(device_.failure()); }, true});
}

void CpuStream::wait_for(const DeviceEvent& event) {
  const auto* const ours = dynamic_cast<const CpuEvent*>(&event);
  if (ours == nullptr || &ours->device_ != &device_) {
    throw std::logic_error("CpuStream::wait_for: the event is of another device");
  }
  put({"wait_for", [point = ours->point("CpuStream::wait_for")] { point->pass(); }, true});
}

void CpuStream::require_pinned(std::string_view call, std::span<const std::byte> memory) const {
  if (device_.is_pinned(memory)) return;
  throw std::logic_error("CpuStream::" + std::string(call) + ": the host memory is not pinned");
}

void CpuStream::copy_to_host(std::span<std::byte> to, const std::byte* from) {
  require_pinned("copy_to_host", to);
  put({"copy_to_host", [this, to, from] { device_.copy(to, from); }});
}

void CpuStream::copy_to_device(std::byte* to, std::span<const std::byte> from) {
  require_pinned("copy_to_device", from);
  put({"copy_to_device", [this, to, from] { device_.copy({to, from.size()}, from.data()); }});
}

void CpuStream::require_allocated(std::string_view call, std::span<const std::byte> memory) const {
  if (device_.is_allocated(memory)) return;
  throw std::logic_error("CpuStream::" + std::string(call) +
                         ": the memory is in no buffer of the device");
}

void CpuStream::pack(std::span<std::byte> to, std::span<const PackPiece> table) {
  require_allocated("pack", to);
  require_allocated("pack", std::as_bytes(table));
  put({"pack", [this, to, table] {
         const auto outside = [to](const PackPiece& piece) {
           return piece.offset > to.size() || piece.size > to.size() - piece.offset;
         };
         if (std::any_of(table.begin(), table.end(), outside)) {
           device_.fail("pack: a piece lies outside of the buffer");
         } else {
           pack_on_host(table, to.data());
         }
       }});
}

void CpuStream::launch(std::function<void()> kernel) { put({"launch", std::move(kernel)}); }

void CpuStream::synchronize() {
  CpuEvent all(device_);
  record(all);
  all.wait();
}

void CpuStream::put(Operation operation) {
  const std::string failure = device_.failure();
  if (!failure.empty()) throw DeviceError(std::string(operation.name), "cpu", 1, failure, true);
  const std::scoped_lock lock(mutex_);
  queue_.push_back(std::move(operation));
  wake_.notify_one();
}

void CpuStream::run(const std::stop_token& stop) {
  for (;;) {
    Operation operation;
    {
      std::unique_lock lock(mutex_);
      if (!wake_.wait(lock, stop, [this] { return !queue_.empty(); })) return;
      operation = std::move(queue_.front());
      queue_.pop_front();
    }
    run_one(operation);
  }
}

void CpuStream::run_one(const Operation& operation) {
  const CpuDeviceOptions& options = device_.options_;
  if (const auto longest = options.longest_delay.count(); longest > 0) {
    std::this_thread::sleep_for(std::chrono::microseconds(random_() % (longest + 1)));
  }
  try {
    if (options.probe && device_.failure().empty()) options.probe(operation.name);
  } catch (const std::exception& error) {
    device_.fail(error.what());
  }
  if (operation.always || device_.failure().empty()) operation.run();
}

}  // namespace millrace
