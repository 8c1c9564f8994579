// Hold: a place where a test stops another thread, and lets it go.
#pragma once

#include <unistd.h>

#include <condition_variable>
#include <fstream>
#include <mutex>
#include <string>
#include <thread>

namespace millrace::test {

class Hold {
 public:
  // Called by the thread to be stopped: blocks until release(), at once after it.
  void enter() {
    std::unique_lock lock(mutex_);
    ++entered_;
    changed_.notify_all();
    changed_.wait(lock, [this] { return released_; });
  }
  void wait_until_entered() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return entered_ > 0; });
  }
  void release() {
    const std::lock_guard lock(mutex_);
    released_ = true;
    changed_.notify_all();
  }
  bool released() const {
    const std::lock_guard lock(mutex_);
    return released_;
  }

 private:
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  int entered_ = 0;
  bool released_ = false;
};

// Returns once the thread (by its gettid()) sleeps in the kernel: what it could still do without
// being woken, it has done.
inline void wait_until_asleep(pid_t thread) {
  const std::string path = "/proc/self/task/" + std::to_string(thread) + "/stat";
  for (;;) {
    std::string stat;
    std::getline(std::ifstream(path), stat);
    const auto name_end = stat.rfind(')');
    if (name_end == std::string::npos || stat.substr(name_end + 2, 1) == "S") return;
    std::this_thread::yield();
  }
}

}  // namespace millrace::test
