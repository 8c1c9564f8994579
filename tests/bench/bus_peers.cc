#include "tests/bench/bus_peers.h"

#include <sigc++/sigc++.h>

#include <boost/signals2/dummy_mutex.hpp>
#include <boost/signals2/signal.hpp>
#include <boost/signals2/signal_type.hpp>

#include "tests/bench/bus_subscribers.h"

namespace millrace::bench {
namespace {

namespace signals2 = boost::signals2;
using Unlocked = signals2::signal_type<void(const Step&),
                                       signals2::keywords::mutex_type<signals2::dummy_mutex>>::type;

template <class Signal>
class Peer final : public PeerSignal {
 public:
  explicit Peer(int hooks) {
    for (int i = 0; i < hooks; ++i) {
      signal_.connect([n = std::make_shared<std::int64_t>(0)](const Step& s) { *n += s.iter; });
    }
  }
  void emit(std::int64_t n) override {
    for (std::int64_t i = 0; i < n; ++i) {
      const Step step{i};
      escape(step);
      signal_(step);
    }
  }

 private:
  Signal signal_;
};

}  // namespace

std::unique_ptr<PeerSignal> boost_signal(int hooks) {
  return std::make_unique<Peer<signals2::signal<void(const Step&)>>>(hooks);
}

std::unique_ptr<PeerSignal> boost_signal_unlocked(int hooks) {
  return std::make_unique<Peer<Unlocked>>(hooks);
}

std::unique_ptr<PeerSignal> sigc_signal(int hooks) {
  return std::make_unique<Peer<sigc::signal<void, const Step&>>>(hooks);
}

}  // namespace millrace::bench
