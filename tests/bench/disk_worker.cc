// Millrace's side of peers_disk.py, and what the disk itself gives: one command a line, one JSON
// line as answer. Files of the reading commands are cold; every file is named within the folder
// that the program gets.
//
//   disk_worker <folder>
//     state <MiB>            what is written from here on; its memory is staged once
//     commit <name>          the file alone: first byte to the sync of its directory
//     store <name>           with its catalog row and last_checkpoint, as a run does it
//     raw_write <name>       as many bytes: a new file, reserved, O_DIRECT in blocks, no sync
//     source <name> <MiB>    a file with that much of weights and twice that of moments
//     raw_read <name>        O_DIRECT in blocks into one buffer
//     buffered_read <name>   the same through the page cache
//     load <name>            into new memory, every checksum checked, as a resume reads
//     resume                 finds the newest valid file, then loads it
//     verify <name>          checksums alone, no time
//     publish <name>         meta and state_dict
//     remove <name>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <iostream>
#include <map>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "millrace/io/checkpoint_store.h"
#include "millrace/io/local_storage.h"
#include "millrace/io/page_buffer.h"
#include "millrace/io/pickler.h"
#include "millrace/io/pth_reader.h"
#include "millrace/runtime/engine/checkpoint_file.h"
#include "millrace/runtime/staging/pth_image.h"
#include "millrace/runtime/staging/staging.h"
#include "tests/bench/pth_source.h"

namespace millrace {
namespace {

using SteadyClock = std::chrono::steady_clock;
constexpr std::size_t kBlock = std::size_t{8} << 20;

void check(bool good, const std::string& what) {
  if (!good) throw std::runtime_error(what);
}

class Disk {
 public:
  explicit Disk(const std::string& folder)
      : folder_(folder), storage_(folder), store_(storage_, storage_) {
    store_.prepare();
    commands_ = {{"state", &Disk::state},
                 {"commit", &Disk::commit},
                 {"store", &Disk::store},
                 {"raw_write", &Disk::raw_write},
                 {"source", &Disk::source},
                 {"raw_read", &Disk::raw_read},
                 {"buffered_read", &Disk::buffered_read},
                 {"load", &Disk::load},
                 {"resume", &Disk::resume},
                 {"verify", &Disk::verify},
                 {"publish", &Disk::publish},
                 {"remove", &Disk::remove}};
  }

  // The answer, as JSON.
  std::string run(const std::string& line) {
    std::istringstream words(line);
    std::string command;
    words >> command >> name_ >> mib_;
    const auto found = commands_.find(command);
    check(found != commands_.end(), "no such command: " + line);
    more_.clear();
    seconds_ = 0;
    (this->*found->second)();
    return "{\"seconds\": " + std::to_string(seconds_) + more_ + "}";
  }

 private:
  template <class Work>
  void time(Work work) {
    const auto start = SteadyClock::now();
    work();
    seconds_ = std::chrono::duration<double>(SteadyClock::now() - start).count();
  }
  std::string path() const { return folder_ + "/" + name_; }

  void state() {
    mib_ = std::stoul(name_);
    live_ = bench::random_bytes(mib_ << 20);
    storages_.clear();
    tree_ = pickle::Value::ordered_dict();
    const std::span<const std::byte> all(live_);
    for (std::size_t at = 0; at < all.size(); at += kBlock / 2) {
      const std::string key = std::to_string(storages_.size());
      storages_.push_back({all.subspan(at, kBlock / 2)});
      const auto count = static_cast<std::int64_t>(kBlock / 8);
      tree_.set("weight" + key, pickle::make_tensor({.storage_key = key,
                                                     .dtype = DType::kFloat32,
                                                     .storage_numel = count,
                                                     .offset = 0,
                                                     .sizes = {count},
                                                     .strides = {1}}));
    }
    staging_ = std::make_unique<Staging>();
    staging_->reserve(storages_);
  }

  template <class Write>
  void write(Write commit_image) {
    pickle::Value root = pickle::Value::dict();
    root.set("state_dict", tree_);
    StateRecord record;
    record.identity = {new_save_id(), "", ++generation_, "bench", 0, 0};
    time([&] {
      PthImage image(staging_->begin(storages_, StageMode::kLazy), pickle::pickle(root),
                     {{std::string(CheckpointStore::kStateEntry), encode_state_record(record)}});
      commit_image(image, record);
    });
    staging_->gate().writable_all();
  }
  void commit() {
    write([this](FileImage& image, const StateRecord&) { storage_.commit(name_, image); });
  }
  void store() {
    write([this](FileImage& image, const StateRecord& record) {
      store_.commit(name_, image, {.identity = record.identity});
    });
  }

  void raw_write() {
    const auto block = filled_block();
    time([&] {
      const int fd = ::open(path().c_str(), O_WRONLY | O_CREAT | O_EXCL | O_DIRECT, 0644);
      check(fd >= 0, "no O_DIRECT file " + path());
      check(::posix_fallocate(fd, 0, static_cast<off_t>(live_.size())) == 0, "fallocate");
      for (std::size_t at = 0; at < live_.size(); at += kBlock) {
        const auto size = static_cast<ssize_t>(std::min(kBlock, live_.size() - at));
        check(::pwrite(fd, block.data(), static_cast<std::size_t>(size), static_cast<off_t>(at)) ==
                  size,
              "short write");
      }
      ::close(fd);
    });
  }
  std::span<const std::byte> filled_block() {
    const auto block = block_.take(kBlock);
    std::copy_n(live_.begin(), block.size(), block.begin());
    return block;
  }

  void source() { bench::write_source(storage_, name_, mib_); }
  void raw_read() { read_blocks(O_DIRECT); }
  void buffered_read() {
    bench::drop_cache(path());
    read_blocks(0);
  }
  void read_blocks(int flags) {
    const auto block = block_.take(kBlock);
    time([&] {
      const int fd = ::open(path().c_str(), O_RDONLY | flags);
      check(fd >= 0, "cannot open " + path());
      ssize_t got = 1;
      for (off_t at = 0; got > 0; at += got) got = ::pread(fd, block.data(), kBlock, at);
      check(got == 0, "read");
      ::close(fd);
    });
  }
  void load() {
    bench::drop_cache(path());
    time([&] { CheckpointFile::read(storage_, name_); });
  }
  void resume() {
    for (const ObjectInfo& object : storage_.list()) bench::drop_cache(folder_ + "/" + object.name);
    time([&] {
      store_.newest_valid(
          [this](const std::string& name) { CheckpointFile::read(storage_, name); });
    });
  }
  void verify() {
    const auto reader = PthReader::open(storage_.open(name_));
    check(reader && reader.value().verify(), name_ + " does not verify");
  }
  void publish() {
    bench::drop_cache(path());
    const std::vector<std::string> keys = {"meta", "state_dict"};
    time([&] {
      const auto published = publish_checkpoint(storage_, name_, keys);
      more_ = ", \"name\": \"" + published.name + "\", \"sha256\": \"" + published.sha256 + "\"";
    });
  }
  void remove() { storage_.retire(name_); }

  const std::string folder_;
  LocalStorage storage_;
  CheckpointStore store_;
  std::map<std::string, void (Disk::*)()> commands_;
  std::string name_, more_;
  std::size_t mib_ = 0;
  double seconds_ = 0;
  std::uint64_t generation_ = 0;
  std::vector<std::byte> live_;
  std::vector<CapturedStorage> storages_;
  pickle::Value tree_;
  std::unique_ptr<Staging> staging_;
  PageBuffer block_;
};

}  // namespace
}  // namespace millrace

int main(int argc, char** argv) {
  try {
    millrace::check(argc == 2, "usage: disk_worker <folder>");
    millrace::Disk disk(argv[1]);
    for (std::string line; std::getline(std::cin, line);) std::cout << disk.run(line) << std::endl;
  } catch (const std::exception& error) {
    std::cerr << "disk_worker: " << error.what() << "\n";
    return 1;
  }
}
