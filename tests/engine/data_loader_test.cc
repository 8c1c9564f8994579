#include "millrace/runtime/engine/data_loader.h"

#include <gmock/gmock.h>

#include <array>

#include "millrace/runtime/async/error.h"

namespace millrace {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// Sample i is the number i and the pair (10 i, 10 i + 1).
std::shared_ptr<const Dataset> numbers(std::int64_t samples) {
  std::vector<std::int64_t> first;
  std::vector<float> second;
  for (std::int64_t i = 0; i < samples; ++i) {
    first.push_back(i);
    second.push_back(static_cast<float>(10 * i));
    second.push_back(static_cast<float>(10 * i + 1));
  }
  return std::make_shared<InMemoryDataset>(std::vector<InMemoryDataset::Column>{
      InMemoryDataset::column<std::int64_t>(DType::kInt64, {}, first),
      InMemoryDataset::column<float>(DType::kFloat32, {2}, second)});
}

std::vector<std::int64_t> ids(const Batch& batch) {
  const auto values = batch.fields()[0].view().as<std::int64_t>();
  return {values.begin(), values.end()};
}

std::string config_error(const std::function<void()>& call) {
  try {
    call();
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "no error";
}

TEST(DataLoader, GathersFieldsWithAShorterLastBatch) {
  const auto loading = loader(numbers(5), {.batch_size = 2});
  EXPECT_EQ(loading->batches(), 3);
  EXPECT_EQ(loading->samples(), 5);
  const Batch* batch = loading->next();
  ASSERT_NE(batch, nullptr);
  EXPECT_EQ(batch->size(), 2);
  EXPECT_THAT(ids(*batch), ElementsAre(0, 1));
  EXPECT_THAT(batch->fields()[1].sizes, ElementsAre(2, 2));
  EXPECT_THAT(batch->fields()[1].view().as<float>(), ElementsAre(0, 1, 10, 11));
  loading->next();
  batch = loading->next();
  ASSERT_NE(batch, nullptr);
  EXPECT_THAT(ids(*batch), ElementsAre(4));
  EXPECT_THAT(batch->fields()[1].sizes, ElementsAre(1, 2));
  EXPECT_THAT(batch->fields()[1].view().as<float>(), ElementsAre(40, 41));
  EXPECT_EQ(loading->next(), nullptr);
  EXPECT_EQ(loading->next(), nullptr);
}

TEST(DataLoader, GathersIntoTheMemoryItIsGivenWhileThatIsFree) {
  struct Memory final : BatchMemory {
    std::span<std::byte* const> room(std::span<const std::size_t> field_bytes) override {
      asked.assign(field_bytes.begin(), field_bytes.end());
      if (!free) return {};
      return fields;
    }
    std::byte first[64], second[64];
    std::array<std::byte*, 2> fields{first, second};
    std::vector<std::size_t> asked;
    bool free = true;
  } memory;
  const auto loading = loader(numbers(5), {.batch_size = 2});
  const Batch* batch = loading->next(&memory);
  EXPECT_THAT(memory.asked, ElementsAre(2 * sizeof(std::int64_t), 4 * sizeof(float)));
  EXPECT_EQ(batch->fields()[0].bytes.data(), memory.first);
  EXPECT_EQ(batch->fields()[1].bytes.data(), memory.second);
  EXPECT_THAT(ids(*batch), ElementsAre(0, 1));
  EXPECT_THAT(batch->fields()[1].view().as<float>(), ElementsAre(0, 1, 10, 11));
  memory.free = false;
  batch = loading->next(&memory);
  EXPECT_NE(batch->fields()[0].bytes.data(), memory.first);
  EXPECT_THAT(ids(*batch), ElementsAre(2, 3));
  memory.free = true;
  batch = loading->next(&memory);
  EXPECT_EQ(batch->fields()[0].bytes.size(), sizeof(std::int64_t)) << "the last one is shorter";
  EXPECT_THAT(ids(*batch), ElementsAre(4));
}

TEST(DataLoader, DropLastLeavesOutTheShortBatch) {
  const auto loading = loader(numbers(5), {.batch_size = 2, .drop_last = true});
  EXPECT_EQ(loading->batches(), 2);
  EXPECT_NE(loading->next(), nullptr);
  EXPECT_NE(loading->next(), nullptr);
  EXPECT_EQ(loading->next(), nullptr);
}

TEST(DataLoader, ItsPositionIsWhatWasConsumed) {
  const auto loading = loader(numbers(6), {.batch_size = 2});
  EXPECT_EQ(loading->position(), (LoaderPosition{0, 0}));
  loading->next();
  loading->next();
  EXPECT_EQ(loading->position(), (LoaderPosition{0, 2}));
  loading->rewind();
  EXPECT_EQ(loading->position(), (LoaderPosition{0, 0}));
  EXPECT_THAT(ids(*loading->next()), ElementsAre(0, 1));
}

TEST(DataLoader, SeekGoesToTheVeryNextBatch) {
  const LoaderOptions options{.batch_size = 2, .shuffle = true, .seed = 3};
  const auto straight = loader(numbers(7), options);
  straight->sampler().set_epoch(5);
  straight->next();
  straight->next();
  const auto resumed = loader(numbers(7), options);
  resumed->seek(straight->position());
  EXPECT_EQ(resumed->position(), (LoaderPosition{5, 2}));
  EXPECT_EQ(ids(*resumed->next()), ids(*straight->next()));
  EXPECT_EQ(ids(*resumed->next()), ids(*straight->next()));
  EXPECT_EQ(resumed->next(), nullptr);
  resumed->seek({0, 4});
  EXPECT_EQ(resumed->next(), nullptr) << "the end of an epoch is a position too";
}

TEST(DataLoader, SeekBeyondTheEpochSaysWhatToDo) {
  const auto loading = loader(numbers(6), {.batch_size = 2});
  loading->next();
  for (const std::int64_t batch : {-1, 4}) {
    EXPECT_THAT(config_error([&] {
                  loading->seek({2, batch});
                }),
                HasSubstr("this run's epoch has 3 batches"));
  }
  EXPECT_EQ(loading->position(), (LoaderPosition{0, 1})) << "nothing moved";
}

TEST(DataLoader, RefusesWhatGivesNoBatch) {
  EXPECT_THAT(config_error([] { loader(numbers(3), {.batch_size = 0}); }),
              HasSubstr("loader.batch_size"));
  EXPECT_THAT(config_error([] { loader(numbers(0)); }), HasSubstr("0 samples"));
  EXPECT_THAT(config_error([] { loader(numbers(3), {.batch_size = 4, .drop_last = true}); }),
              HasSubstr("not one batch of 4"));
}

}  // namespace
}  // namespace millrace
