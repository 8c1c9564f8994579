// Seeded mutations of good files. Nothing may crash, hang, leak or (under the sanitizers) overflow,
// and what a file of ours yields is what was written, or a fault.
#include <gtest/gtest.h>

#include "millrace/io/pickler.h"
#include "millrace/io/state_record.h"
#include "millrace/io/unpickler.h"
#include "tests/io/support/allocation_meter.h"
#include "tests/io/support/pth_file.h"
#include "tests/io/support/zip_builder.h"
#include "tests/support/mutator.h"

namespace millrace {
namespace {

using test::Mutator;
using test::read_content;

constexpr int kMutations = 20'000;  // of each kind

TEST(PthFuzz, OurFilesNeverLie) {
  Mutator mutator(1);
  const auto file = test::small_file();
  const auto truth = read_content(file);
  ASSERT_TRUE(truth.ok());
  for (int i = 0; i < kMutations; ++i) {
    const auto content = read_content(mutator.mutate(file));
    // Mutations in padding and times change nothing; a file cut back to another program's would.
    if (!content) continue;
    ASSERT_EQ(content.value(), truth.value()) << i;
  }
}

TEST(PthFuzz, PicklesStayWithinTheirMemory) {
  Mutator mutator(2);
  auto file = PthReader::open(test::in_memory(test::small_file()));
  ASSERT_TRUE(file.ok());
  pickle::Value root = file->root();
  auto set = std::make_shared<pickle::Set>();
  set->items = {1, "x"};
  root.set("set", pickle::Value(pickle::Value::Data(set)));
  root.set("bytes", pickle::Value(pickle::Value::Data(pickle::Bytes{"\x80\x01"})));
  const pickle::Value meta = *root.find("meta");
  root.set("shared", pickle::Value::list({meta, meta}));
  const auto bytes = pickle::pickle(root);
  int accepted = 0;
  for (int i = 0; i < kMutations; ++i) {
    const auto mutated = mutator.mutate(bytes);
    const test::AllocationMeter meter;
    const auto value = pickle::unpickle(mutated);
    ASSERT_LE(meter.peak(), 600 * mutated.size() + 65'536) << i;
    if (!value) continue;
    ++accepted;
    // What was accepted can be written, and reads back as itself.
    const auto again = pickle::unpickle(pickle::pickle(value.value()));
    ASSERT_TRUE(again.ok()) << i << ": " << again.fault().text();
    ASSERT_EQ(again.value(), value.value()) << i;
  }
  EXPECT_GT(accepted, 0);
}

// Without checksums the mutations reach the decoders behind them.
TEST(PthFuzz, ForeignZipsWithoutChecksums) {
  Mutator mutator(3);
  const auto pickled = pickle::pickle(pickle::Value::list(
      {pickle::make_tensor({"0", DType::kFloat32, 4, 0, {2, 2}, {2, 1}, false}), "text"}));
  const std::string text(reinterpret_cast<const char*>(pickled.data()), pickled.size());
  for (const bool deflate : {false, true}) {
    std::vector<test::ZipPart> parts{
        {.name = "a/data.pkl", .content = text, .deflate = deflate, .crc = 0},
        {.name = "a/data/0", .content = std::string(16, 'x'), .deflate = deflate, .crc = 0}};
    const auto file = test::build_zip(parts);
    ASSERT_TRUE(read_content(file).ok());
    for (int i = 0; i < kMutations / 2; ++i) (void)read_content(mutator.mutate(file)).ok();
  }
}

TEST(PthFuzz, StateRecords) {
  Mutator mutator(4);
  StateRecord record;
  record.sections["a"] = "text";
  const auto bytes = encode_state_record(record);
  for (int i = 0; i < kMutations; ++i) {
    const auto mutated = mutator.mutate(bytes);
    const auto back = decode_state_record(mutated);
    ASSERT_EQ(back.ok(), mutated == bytes) << i;
  }
}

}  // namespace
}  // namespace millrace
