// VolatileFile: the bytes of one file of a crash_states.h model, durable and volatile, and what the
// disk may have of them after a power cut. The rules are at the head of that file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "tests/support/recording_file_ops.h"

namespace millrace::test {

// One content that a file may have.
struct FileVersion {
  std::shared_ptr<const DiskFile> file;
  std::uint64_t hash = 0;
  std::string how;  // "" when everything is there
};

class VolatileFile {
 public:
  static constexpr std::size_t kSector = 512;
  static constexpr std::size_t kAllUpTo = 16;  // versions; of more, a sample

  VolatileFile() : VolatileFile(DiskFile()) {}
  explicit VolatileFile(const DiskFile& durable);

  void change(const DiskOperation& operation);  // kWrite or kResize, which outlives this
  void sync();

  // Distinct ones: first everything, second the durable bytes, where they differ. `all` becomes
  // false for a sample. Valid until the next change; the same until then.
  const std::vector<FileVersion>& versions(std::mt19937_64& random, bool& all);

 private:
  // Which of the volatile writes to each sector, how much of the file, and what stands where
  // nothing was written.
  struct Choice {
    std::map<std::uint64_t, std::size_t> writes;
    std::uint64_t size = 0;
    bool stale = false;
  };
  std::vector<Choice> choices(std::mt19937_64& random);
  void choose_all(std::vector<Choice>& choices) const;
  void choose_some(std::vector<Choice>& choices, std::mt19937_64& random) const;
  FileVersion make(const Choice& choice) const;
  std::vector<std::uint64_t> sizes() const;

  std::shared_ptr<const DiskFile> durable_;
  std::vector<const DiskOperation*> changes_;
  std::map<std::uint64_t, std::size_t> sectors_;  // written to, and how often
  std::vector<FileVersion> versions_;             // empty: not asked for since the last change
  bool all_ = true;
};

}  // namespace millrace::test
