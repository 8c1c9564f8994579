#include "millrace/io/publish.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cerrno>
#include <cstdio>

#include "millrace/io/local_storage.h"
#include "millrace/io/memory_storage.h"
#include "millrace/io/pickler.h"
#include "millrace/io/sha256.h"
#include "millrace/io/state_record.h"
#include "millrace/runtime/async/error.h"
#include "tests/io/support/allocation_meter.h"
#include "tests/io/support/pth_file.h"
#include "tests/io/support/zip_builder.h"
#include "tests/support/fault_file_ops.h"
#include "tests/support/images.h"
#include "tests/support/object_storage.h"
#include "tests/support/temp_dir.h"

namespace millrace::test {
namespace {

using pickle::make_tensor;
using pickle::Value;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

const std::vector<std::string> kKeys = {"meta", "state_dict"};

std::string printed_by_sha256sum(const std::filesystem::path& path) {
  const std::string command = "sha256sum '" + path.string() + "'";
  FILE* pipe = ::popen(command.c_str(), "r");
  std::array<char, 65> digits{};
  EXPECT_EQ(std::fread(digits.data(), 1, 64, pipe), 64U);
  ::pclose(pipe);
  return digits.data();
}

Value tensor(const std::string& storage, std::int64_t numel, std::int64_t offset = 0) {
  return make_tensor({storage, DType::kUInt8, numel, offset, {numel - offset}, {1}, false});
}

// Keys of a training checkpoint: the optimizer's storages come first, two names share a tensor, and
// one looks into another's storage. `names` are the storages of state_dict.
Value tree(const std::array<std::string, 2>& names, std::int64_t weight_bytes, bool whole) {
  Value state = Value::ordered_dict();
  const Value weight = tensor(names[0], weight_bytes);
  state.set("weight", weight);
  state.set("tied", weight);
  state.set("window", tensor(names[0], weight_bytes, 3));
  state.set("bias", tensor(names[1], 100));
  set_attribute(state, "_metadata", Value::ordered_dict());
  Value root = Value::dict();
  if (whole) {
    Value optimizer = Value::dict();
    optimizer.set("state", Value::list({tensor("0", weight_bytes), tensor("1", 100)}));
    root.set("optimizer", optimizer);
  }
  root.set("meta", Value::list({1, 2.5, "text", Value()}));
  root.set("state_dict", state);
  if (whole) root.set("message_hub", Value::list({tensor("3", 100)}));
  return root;
}

struct Source {
  explicit Source(std::size_t weight_bytes = 50'000) : weight_bytes_(weight_bytes) {
    StateRecord record;
    record.identity.save_id = new_save_id();
    file = make_file(tree({"2", "3"}, size(), true), storages(),
                     {{"millrace/state", encode_state_record(record)}});
    const pickle::StorageNames names = {{"2", "0"}, {"3", "1"}};
    reduced = make_file_of_pickle(pickle::pickle(tree({"2", "3"}, size(), false), names),
                                  {storages()[2], storages()[3]});
  }
  std::int64_t size() const { return static_cast<std::int64_t>(weight_bytes_); }
  std::vector<std::vector<std::byte>> storages() const {
    return {pattern(weight_bytes_, 1), pattern(100, 2), pattern(weight_bytes_, 3), pattern(100, 4)};
  }

  std::size_t weight_bytes_;
  std::vector<std::byte> file;
  std::vector<std::byte> reduced;  // of kKeys
};

std::string name_of(const std::vector<std::byte>& file) {
  return "epoch_3-" + sha256_hex(file).substr(0, 8) + ".pth";
}

TEST(Publish, IsTheSourceMinusTheKeysByteForByte) {
  const Source source;
  MemoryStorage storage;
  commit_bytes(storage, "epoch_3.pth", source.file);
  const PublishedCheckpoint published = publish_checkpoint(storage, "epoch_3.pth", kKeys);
  EXPECT_TRUE(read_all(storage, published.name) == source.reduced);
  EXPECT_EQ(published.name, name_of(source.reduced));
  EXPECT_EQ(published.sha256, sha256_hex(source.reduced));
  EXPECT_EQ(published.bytes, source.reduced.size());
  EXPECT_THAT(published.removed_keys, ElementsAre("optimizer", "message_hub"));
  EXPECT_THAT(published.missing_keys, IsEmpty());
  EXPECT_LT(published.bytes, source.weight_bytes_ + 3'000) << "the optimizer's bytes are in it";
  EXPECT_TRUE(read_all(storage, "epoch_3.pth") == source.file) << "the source was changed";
  EXPECT_THAT(names_of(storage), ElementsAre(published.name, "epoch_3.pth"));
}

TEST(Publish, SharedAndOverlappingTensorsStayShared) {
  const Source source;
  MemoryStorage storage;
  commit_bytes(storage, "epoch_3.pth", source.file);
  const PublishedCheckpoint published = publish_checkpoint(storage, "epoch_3.pth", kKeys);
  const auto reader = PthReader::open(storage.open(published.name));
  ASSERT_TRUE(reader.ok());
  EXPECT_TRUE(reader.value().verify().ok());
  EXPECT_THAT(reader.value().storage_keys(), ElementsAre("0", "1"));
  const Value& state = *reader.value().root().find("state_dict");
  EXPECT_EQ(pickle::as_tensor(*state.find("tied"))->storage_key, "0");
  EXPECT_EQ(pickle::as_tensor(*state.find("window"))->storage_key, "0");
  EXPECT_EQ(pickle::as_tensor(*state.find("window"))->offset, 3);
  EXPECT_FALSE(reader.value().entry("millrace/state").value().has_value());
}

TEST(Publish, NameIsThatOfSha256sum) {
  TempDir dir;
  LocalStorage storage(dir.path());
  commit_bytes(storage, "epoch_3.pth", Source(3'000'000).file);
  commit_bytes(storage, "best_acc_iter_7.pth", Source(100).file);
  for (const std::string name : {"epoch_3", "best_acc_iter_7"}) {
    const PublishedCheckpoint published = publish_checkpoint(storage, name + ".pth", kKeys);
    const std::string digits = printed_by_sha256sum(dir.path() / published.name);
    EXPECT_EQ(published.sha256, digits);
    EXPECT_EQ(published.name, name + "-" + digits.substr(0, 8) + ".pth");
  }
}

TEST(Publish, TwiceGivesOneFile) {
  MemoryStorage storage;
  commit_bytes(storage, "epoch_3.pth", Source().file);
  const PublishedCheckpoint first = publish_checkpoint(storage, "epoch_3.pth", kKeys);
  const std::vector<std::string> reversed = {"state_dict", "meta", "meta"};
  const PublishedCheckpoint second = publish_checkpoint(storage, "epoch_3.pth", reversed);
  EXPECT_EQ(first.name, second.name);
  EXPECT_EQ(storage.list().size(), 2U);
  EXPECT_NE(publish_checkpoint(storage, "epoch_3.pth", std::vector<std::string>{"meta"}).name,
            first.name);
}

TEST(Publish, KeysThatAreNotThereAreSaid) {
  MemoryStorage storage;
  commit_bytes(storage, "epoch_3.pth", Source().file);
  const std::vector<std::string> some = {"state_dict", "ema_state_dict"};
  EXPECT_THAT(publish_checkpoint(storage, "epoch_3.pth", some).missing_keys,
              ElementsAre("ema_state_dict"));
  for (const std::vector<std::string>& none : {std::vector<std::string>{"state_dic"}, {}}) {
    try {
      publish_checkpoint(storage, "epoch_3.pth", none);
      FAIL() << "published nothing";
    } catch (const CheckpointError& error) {
      EXPECT_THAT(error.what(), HasSubstr("optimizer meta state_dict message_hub"));
      EXPECT_TRUE(none.empty() ||
                  std::string(error.what()).find("mean state_dict") != std::string::npos)
          << error.what();
    }
  }
}

TEST(Publish, OtherMappingsAndKeysAtTheTop) {
  MemoryStorage storage;
  Value root = Value::ordered_dict();
  root.set("b", tensor("0", 4));
  root.set(7, tensor("1", 4));
  root.set("a", 1);
  set_attribute(root, "_metadata", Value::list({1}));
  commit_bytes(storage, "a.pth", make_file(root, {bytes_of("0123"), bytes_of("4567")}));
  const PublishedCheckpoint published =
      publish_checkpoint(storage, "a.pth", std::vector<std::string>{"a", "b", "7"});
  EXPECT_THAT(published.removed_keys, ElementsAre("7"));
  EXPECT_THAT(published.missing_keys, ElementsAre("7"));
  Value expected = Value::ordered_dict();
  expected.set("b", tensor("0", 4));
  expected.set("a", 1);
  set_attribute(expected, "_metadata", Value::list({1}));
  EXPECT_EQ(read_all(storage, published.name), make_file(expected, {bytes_of("0123")}));

  commit_bytes(storage, "list.pth", make_file(Value::list({1}), {}));
  EXPECT_THROW(publish_checkpoint(storage, "list.pth", kKeys), CheckpointError);
}

// The same content from files that other programs wrote gives the same published file.
TEST(Publish, CompressedAndChecksumlessSources) {
  const Source source;
  const auto text = [](const std::vector<std::byte>& bytes) {
    return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  };
  for (const bool deflate : {true, false}) {
    std::vector<ZipPart> parts;
    parts.push_back({.name = "epoch_3/data.pkl",
                     .content = text(pickle::pickle(tree({"2", "3"}, source.size(), true))),
                     .deflate = deflate});
    for (int i = 0; i < 4; ++i) {
      ZipPart part;
      part.name = "epoch_3/data/" + std::to_string(i);
      part.content = text(source.storages()[static_cast<std::size_t>(i)]);
      part.deflate = deflate;
      if (!deflate) part.crc = 0;  // as torch does when told not to compute them
      parts.push_back(part);
    }
    MemoryStorage storage;
    commit_bytes(storage, "epoch_3.pth", build_zip(parts));
    const PublishedCheckpoint published = publish_checkpoint(storage, "epoch_3.pth", kKeys);
    EXPECT_TRUE(read_all(storage, published.name) == source.reduced) << deflate;
  }
}

TEST(Publish, LegacySource) {
  const Source source;
  std::vector<std::byte> file;
  const auto add = [&](const std::vector<std::byte>& bytes) {
    file.insert(file.end(), bytes.begin(), bytes.end());
  };
  Value system = Value::dict();
  system.set("protocol_version", 1001);
  system.set("little_endian", true);
  const std::string magic = "\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19";
  add(pickle::pickle(Value(Value::Data(pickle::BigInt{magic}))));
  add(pickle::pickle(1001));
  add(pickle::pickle(system));
  add(pickle::pickle(tree({"2", "3"}, source.size(), true)));
  add(pickle::pickle(Value::list({"0", "1", "2", "3"})));
  for (const auto& storage : source.storages()) {
    for (int i = 0; i < 64; i += 8) file.push_back(static_cast<std::byte>(storage.size() >> i));
    add(storage);
  }
  MemoryStorage storage;
  commit_bytes(storage, "epoch_3.pth", file);
  const PublishedCheckpoint published = publish_checkpoint(storage, "epoch_3.pth", kKeys);
  EXPECT_TRUE(read_all(storage, published.name) == source.reduced);
}

TEST(Publish, ObjectStorePutsOnceAndCopies) {
  const Source source;
  ObjectStorage storage;
  commit_bytes(storage, "epoch_3.pth", source.file);
  storage.forget_requests();
  const PublishedCheckpoint published = publish_checkpoint(storage, "epoch_3.pth", kKeys);
  EXPECT_THAT(
      storage.requests(),
      ElementsAre("get epoch_3.pth", "put .epoch_3.*.tmp " + std::to_string(source.reduced.size()),
                  "copy .epoch_3.*.tmp " + published.name, "delete .epoch_3.*.tmp"));
  EXPECT_TRUE(read_all(storage, published.name) == source.reduced);
}

TEST(Publish, WhatIsNoCheckpointIsRefused) {
  MemoryStorage storage;
  commit_text(storage, "text.pth", "this is a text\n");
  EXPECT_THROW(publish_checkpoint(storage, "text.pth", kKeys), CheckpointError);
  EXPECT_THROW(publish_checkpoint(storage, "absent.pth", kKeys), StorageError);
  EXPECT_THAT(names_of(storage), ElementsAre("text.pth"));
}

// Whatever byte of the source is altered: it is refused, or was none that the new file has.
TEST(Publish, AlteredSourceIsRefusedOrWithoutEffect) {
  const Source source(200);
  std::size_t refused = 0;
  for (std::size_t i = 0; i < source.file.size(); ++i) {
    auto file = source.file;
    file[i] ^= std::byte{0x20};
    MemoryStorage storage;
    commit_bytes(storage, "epoch_3.pth", file);
    try {
      const PublishedCheckpoint published = publish_checkpoint(storage, "epoch_3.pth", kKeys);
      ASSERT_TRUE(read_all(storage, published.name) == source.reduced) << "byte " << i;
    } catch (const CheckpointError& error) {
      ++refused;
      EXPECT_THAT(error.what(), HasSubstr("memory:/epoch_3.pth"));
      ASSERT_THAT(names_of(storage), ElementsAre("epoch_3.pth")) << "byte " << i;
    }
  }
  EXPECT_GT(refused, source.file.size() / 2);
}

// A LocalStorage over faults whose blocks are small, so that there are many.
struct Rig {
  explicit Rig(std::size_t weight_bytes = 200'000) : source(weight_bytes) {
    storage.prepare();
    commit_bytes(storage, "epoch_3.pth", source.file);
    ops->forget_calls();
  }
  void expect_only_the_source() {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(dir.path())) {
      names.push_back(entry.path().filename().string());
    }
    EXPECT_THAT(names, ElementsAre("epoch_3.pth"));
    EXPECT_EQ(ops->open_descriptors(), 0U);
  }

  Source source;
  TempDir dir;
  std::shared_ptr<FaultFileOps> ops = std::make_shared<FaultFileOps>();
  LocalStorage storage{dir.path(), ops, WriteOptions{16'384, 0}};
};

TEST(PublishFault, EveryCallFailingLeavesNothingOrTheWholeFile) {
  for (const int error_number : {ENOSPC, EIO}) {
    for (std::size_t n = 1;; ++n) {
      SCOPED_TRACE("call " + std::to_string(n));
      Rig rig;
      rig.ops->fail_at(n, error_number);
      bool published = false;
      try {
        publish_checkpoint(rig.storage, "epoch_3.pth", kKeys);
        published = true;
      } catch (const StorageError& error) {
        EXPECT_EQ(error.error_number(), error_number);
        const bool uncertain = std::string(error.what()).find("uncertain") != std::string::npos;
        rig.ops->clear_faults();
        if (!uncertain) rig.expect_only_the_source();
        published = uncertain;
      }
      rig.ops->clear_faults();
      if (published) {
        EXPECT_TRUE(read_all(rig.storage, name_of(rig.source.reduced)) == rig.source.reduced);
      }
      const auto calls = rig.ops->calls();
      const bool reached = std::any_of(calls.begin(), calls.end(), [&](const FileCall& call) {
        return call.result == -error_number;
      });
      if (!reached) {
        EXPECT_GT(n, 25U);
        break;
      }
      if (HasFailure()) return;
    }
  }
}

TEST(PublishFault, FullDiskIsFoundBeforeAByteIsRead) {
  Rig rig;
  rig.ops->fail_next(FileOp::kFallocate, ENOSPC);
  EXPECT_THROW(publish_checkpoint(rig.storage, "epoch_3.pth", kKeys), StorageError);
  rig.expect_only_the_source();
  EXPECT_EQ(rig.ops->count(FileOp::kPwrite), 0U);
}

TEST(PublishFault, ReadsOnceAndWritesOnce) {
  Rig rig;
  publish_checkpoint(rig.storage, "epoch_3.pth", kKeys);
  std::uint64_t read = 0, written = 0;
  for (const FileCall& call : rig.ops->calls()) {
    if (call.op == FileOp::kPread) read += call.length;
    if (call.op == FileOp::kPwrite) written += call.length;
  }
  EXPECT_LT(read, rig.source.reduced.size() + 80'000) << "of a file twice the size";
  EXPECT_LT(written, rig.source.reduced.size() + 4'096);
}

// Requests a stop when block `at` of the image is asked for, or before the name is.
class StoppingStorage final : public Storage {
 public:
  StoppingStorage(Storage& storage, std::uint64_t at) : storage_(storage), at_(at) {}
  std::stop_token token() const { return stop_.get_token(); }

  std::string location() const override { return storage_.location(); }
  std::vector<std::string> prepare() override { return {}; }
  CommitTimes commit(std::string_view, FileImage&) override { return {}; }
  NamedCommit commit_named(std::string_view stem, FileImage& image,
                           const FinalName& final_name) override {
    struct Image final : FileImage {
      Image(FileImage& image, StoppingStorage& owner) : image_(image), owner_(owner) {}
      std::uint64_t size() const override { return image_.size(); }
      std::span<const std::byte> wait(std::uint64_t first, std::uint64_t last) override {
        if (owner_.asked_++ == owner_.at_) owner_.stop_.request_stop();
        return image_.wait(first, last);
      }
      FileImage& image_;
      StoppingStorage& owner_;
    };
    Image stopping(image, *this);
    return storage_.commit_named(stem, stopping, [&] {
      if (asked_++ == at_) stop_.request_stop();
      return final_name();
    });
  }
  std::unique_ptr<StoredObject> open(std::string_view name) const override {
    return storage_.open(name);
  }
  std::vector<ObjectInfo> list() const override { return storage_.list(); }
  void retire(std::string_view) override {}

 private:
  Storage& storage_;
  std::stop_source stop_;
  const std::uint64_t at_;
  std::uint64_t asked_ = 0;
};

TEST(PublishStop, AtAnyBlockLeavesNothing) {
  for (std::uint64_t at = 0;; ++at) {
    SCOPED_TRACE("block " + std::to_string(at));
    Rig rig;
    StoppingStorage storage(rig.storage, at);
    try {
      publish_checkpoint(storage, "epoch_3.pth", kKeys, storage.token());
    } catch (const StorageError& error) {
      FAIL() << error.what();
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), HasSubstr("epoch_3.pth: stopped on request"));
      rig.expect_only_the_source();
      continue;
    }
    EXPECT_GT(at, 13U) << "stops passed unnoticed";
    EXPECT_FALSE(storage.token().stop_requested());
    break;
  }
}

TEST(PublishStop, BeforeTheStartDoesNothing) {
  Rig rig;
  std::stop_source stop;
  stop.request_stop();
  EXPECT_THROW(publish_checkpoint(rig.storage, "epoch_3.pth", kKeys, stop.get_token()), Error);
  rig.expect_only_the_source();
}

TEST(PublishMemory, IsFlatInTheSize) {
  std::array<std::size_t, 2> peaks{};
  for (const std::size_t i : {0, 1}) {
    TempDir dir;
    LocalStorage storage(dir.path(), std::make_shared<PosixFileOps>(), WriteOptions{1 << 20, 0});
    commit_bytes(storage, "epoch_3.pth", Source(i == 0 ? 4 << 20 : 64 << 20).file);
    const AllocationMeter meter;
    publish_checkpoint(storage, "epoch_3.pth", kKeys);
    peaks.at(i) = meter.peak();
  }
  EXPECT_LT(peaks[0], 5U << 20) << "more than four blocks";
  EXPECT_LT(peaks[1], peaks[0] + (256 << 10));
}

}  // namespace
}  // namespace millrace::test
