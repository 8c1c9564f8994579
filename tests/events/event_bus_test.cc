#include "millrace/events/event_bus.h"

#include "millrace/events/checkpoint_events.h"
#include "millrace/events/stage_events.h"
#include "tests/events/fixture.h"

namespace millrace::test {
namespace {

using Bus = BusTest;

TEST_F(Bus, PublishWithoutSubscribersIsReadyAtOnce) {
  EXPECT_TRUE(bus_.publish(Ping{}).await_ready());
  publish();
}

TEST_F(Bus, PublishIsReadyAtOnceWithInlineAndBackgroundSubscribersOnly) {
  auto a = every(50, letter('a'));
  auto b = background({}, [](Ping) {});
  EXPECT_TRUE(bus_.publish(Ping{}).await_ready());
  EXPECT_EQ(log_, "a");
  auto c = awaited(50, slow_letter('c'));
  EXPECT_FALSE(bus_.publish(Ping{}).await_ready());
  close();
}

TEST_F(Bus, ChannelsAreSeparate) {
  const auto a = every<Ping>(50, letter('a'));
  const auto b = every<Pong>(50, [this](const Pong& e) { log_ += e.text; });
  publish();
  EXPECT_EQ(log_, "a");
  const std::string text = "pong";
  (void)bus_.publish(Pong{text});
  EXPECT_EQ(log_, "apong");
}

TEST_F(Bus, BusesAreSeparate) {
  EventBus other;
  const auto a = every(50, letter('a'));
  (void)other.publish(Ping{});
  EXPECT_EQ(log_, "");
}

TEST_F(Bus, APublisherIsTheSameChannel) {
  const Publisher<Ping> publisher = bus_.channel<Ping>();
  EXPECT_FALSE(publisher.has_subscribers());
  const auto a = every(50, letter('a'));
  EXPECT_TRUE(publisher.has_subscribers());
  EXPECT_TRUE(publisher.publish(Ping{}).await_ready());
  publish();
  EXPECT_EQ(log_, "aa");
}

struct Counted {
  static constexpr std::string_view kName = "counted";
  explicit Counted(int& copies) : copies_(copies) {}
  Counted(const Counted& other) : copies_(other.copies_) { ++copies_; }
  int& copies_;
};

TEST_F(Bus, TheEventIsPassedByReferenceWithoutCopies) {
  int copies = 0;
  const Counted event(copies);
  const Counted* seen = nullptr;
  const auto a = every<Counted>(50, [&](const Counted& e) { seen = &e; });
  (void)bus_.publish(event);
  EXPECT_EQ(seen, &event);
  EXPECT_EQ(copies, 0);
  const auto b = awaited<Counted>(60, [](const Counted&) -> Task<> { co_return; });
  { const auto publishing = bus_.publish(event); }
  EXPECT_LE(copies, 2);  // into the coroutine's frame: argument and parameter
}

TEST_F(Bus, StageEventsHoldReferences) {
  Progress at;
  at.epoch = 3;
  std::int64_t epoch = 0;
  const auto a =
      every<BeforeTrainEpoch>(50, [&](const BeforeTrainEpoch& e) { epoch = e.at.epoch; });
  (void)bus_.publish(BeforeTrainEpoch{at});
  EXPECT_EQ(epoch, 3);
}

TEST_F(Bus, EveryGivenEventIsOne) {
  const std::vector<EventKey> keys{event_key<BeforeRun>(),
                                   event_key<AfterRun>(),
                                   event_key<AfterLoadCheckpoint>(),
                                   event_key<BeforeSaveCheckpoint>(),
                                   event_key<BeforeTrain>(),
                                   event_key<AfterTrain>(),
                                   event_key<BeforeTrainEpoch>(),
                                   event_key<AfterTrainEpoch>(),
                                   event_key<BeforeTrainIter>(),
                                   event_key<BeforeOptimizerStep>(),
                                   event_key<AfterTrainIter>(),
                                   event_key<BeforeVal>(),
                                   event_key<AfterVal>(),
                                   event_key<BeforeValEpoch>(),
                                   event_key<AfterValEpoch>(),
                                   event_key<BeforeValIter>(),
                                   event_key<AfterValIter>(),
                                   event_key<BeforeTest>(),
                                   event_key<AfterTest>(),
                                   event_key<BeforeTestEpoch>(),
                                   event_key<AfterTestEpoch>(),
                                   event_key<BeforeTestIter>(),
                                   event_key<AfterTestIter>(),
                                   event_key<CheckpointCaptured>(),
                                   event_key<CheckpointCommitted>(),
                                   event_key<CheckpointFailed>(),
                                   event_key<CheckpointSkipped>(),
                                   event_key<CheckpointReplaced>(),
                                   event_key<CheckpointDiscarded>(),
                                   event_key<CheckpointRemoved>(),
                                   event_key<CheckpointPublished>(),
                                   event_key<StopRequested>()};
  for (std::size_t i = 0; i < keys.size(); ++i) {
    for (std::size_t j = 0; j < i; ++j) {
      EXPECT_NE(keys[i].index, keys[j].index);
      EXPECT_NE(keys[i].name, keys[j].name);
    }
  }
  static_assert(HasOwned<AfterTrainIter> && HasOwned<CheckpointCommitted> &&
                HasOwned<StopRequested>);
  static_assert(!HasOwned<BeforeTrainIter> && !SelfContained<BeforeTrainIter>);
  static_assert(std::is_same_v<OwnedOf<Ping>, Ping>);
}

}  // namespace
}  // namespace millrace::test
