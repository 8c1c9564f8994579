// A child process whose standard output is read line by line. Standard error is the parent's.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

namespace millrace::test {

class Child {
 public:
  explicit Child(std::vector<std::string> command);
  ~Child();  // kills and reaps what is left
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  // The next whole line; nothing once the child closed its output.
  std::optional<std::string> read_line();
  void kill();  // SIGKILL
  // As waitpid() reports it.
  int wait();

 private:
  pid_t process_ = -1;
  int output_ = -1;
  std::string buffer_;
  std::optional<int> status_;
};

// Everything a trainer said until it ended.
struct ChildResult {
  std::vector<std::string> lines;
  int status = 0;
  bool ended_well() const { return status == 0; }
  bool was_killed() const;
  std::vector<std::string> starting_with(const std::string& prefix) const;
};
ChildResult run_child(std::vector<std::string> command);

// The trainer of this build with `arguments` (tests/torch/trainer.cc).
std::vector<std::string> trainer(std::vector<std::string> arguments);

}  // namespace millrace::test
