// Sees whether a thread has come to rest, without waiting for an amount of time: a thread that is
// blocked (on a lock, a condition, an empty event queue) is in state S to the kernel.
#pragma once

#include <sys/syscall.h>
#include <unistd.h>

#include <fstream>
#include <functional>
#include <string>
#include <thread>

namespace millrace::test {

inline int this_thread() { return static_cast<int>(::syscall(SYS_gettid)); }

inline bool is_blocked(int thread) {
  std::ifstream file("/proc/self/task/" + std::to_string(thread) + "/stat");
  std::string text;
  std::getline(file, text);
  const auto name_end = text.rfind(')');  // "123 (name) S ..."
  return name_end != std::string::npos && text.substr(name_end + 2, 1) == "S";
}

// Returns once `thread` is blocked, or `done()` says that it went on.
inline void until_blocked_or(int thread, const std::function<bool()>& done) {
  while (!is_blocked(thread) && !done()) std::this_thread::yield();
}

}  // namespace millrace::test
