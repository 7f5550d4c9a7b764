#include <ATen/ATen.h>

#include <QtTest/QtTest>
#include <thread>

#include "core/base/control.h"

class TestControl : public QObject {
  Q_OBJECT
 private Q_SLOTS:
  void stop_ends_a_paused_wait() {
    std::stop_source source;
    qb::Control control{source.get_token(), std::make_shared<qb::PauseGate>(), {}};
    control.gate->pause();
    std::jthread stopper([&] {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
      source.request_stop();
    });
    QVERIFY_EXCEPTION_THROWN(control.checkpoint(), qb::Cancelled);
  }
  void resident_memory_is_known() {
    at::Tensor held = at::ones({1 << 20});
    QVERIFY(qb::resident_bytes() > (4 << 20));
    QVERIFY(qb::peak_resident_bytes() >= qb::resident_bytes());
  }
};

QTEST_GUILESS_MAIN(TestControl)
#include "test_control.moc"
