// dlib's dnn_trainer with its synchronization file: `dlib_loop <work dir>` loads what is there, as
// set_synchronization_file() does by itself, trains, and saves after every second step.
#include <dlib/dnn.h>

#include <cstdio>
#include <exception>
#include <string>
#include <vector>

namespace {

constexpr long kWidth = 2048;
using Net = dlib::loss_multiclass_log<
    dlib::fc<4, dlib::relu<dlib::fc<kWidth, dlib::input<dlib::matrix<float>>>>>>;

void say(const char* word, unsigned long long number) {
  std::printf("%s %llu\n", word, number);
  std::fflush(stdout);
}

void train(const std::string& work_dir) {
  Net net;
  dlib::dnn_trainer<Net, dlib::adam> trainer(net, dlib::adam(0, 0.9f, 0.999f));
  trainer.set_synchronization_file(work_dir + "/sync");
  say("resumed", trainer.get_train_one_step_calls());
  dlib::rand random(1);
  std::vector<dlib::matrix<float>> inputs;
  std::vector<unsigned long> labels;
  for (unsigned long i = 0; i < 8; ++i) {
    inputs.push_back(dlib::matrix_cast<float>(dlib::gaussian_randm(kWidth, 1, i)));
    labels.push_back(i % 4);
  }
  for (;;) {
    trainer.train_one_step(inputs, labels);
    trainer.train_one_step(inputs, labels);
    say("saving", trainer.get_train_one_step_calls());
    trainer.get_net(dlib::force_flush_to_disk::yes);
    say("saved", trainer.get_train_one_step_calls());
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  try {
    train(argv[1]);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
