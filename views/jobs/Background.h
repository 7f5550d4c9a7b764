#pragma once
#include <QHash>
#include <QObject>
#include <QString>
#include <QThreadPool>
#include <exception>
#include <map>
#include <memory>
#include <optional>
#include <stop_token>
#include <utility>

#include "core/base/error.h"
#include "views/jobs/Priority.h"

namespace qb::views {

// Short work off the GUI thread: opening models, listing workspaces, reading and writing files.
// A later task of the same non-empty slot makes an earlier one stale: its stop token is asked, its result is dropped.
// The destructor cancels and waits; nothing is delivered after it.
class Background : public QObject {
  Q_OBJECT
 public:
  explicit Background(QObject* parent = nullptr);
  ~Background() override;

  // work(std::stop_token) runs on a pool thread; done(result) or failed(message) on this object's thread.
  template <class Work, class Done, class Failed>
  void run(const QString& slot, Work work, Done done, Failed failed) {
    using Result = decltype(work(std::stop_token{}));
    const quint64 serial = begin(slot);
    const std::stop_token stop = m_stops[serial].get_token();
    m_pool.start([this, slot, serial, stop, work = std::move(work), done = std::move(done), failed = std::move(failed)]() mutable {
      yieldToInterface();
      std::shared_ptr<Result> result;
      QString problem;
      try {
        result = std::make_shared<Result>(work(stop));
      } catch (const std::exception& error) {
        problem = QString::fromUtf8(error.what());
      }
      QMetaObject::invokeMethod(
          this,
          [this, slot, serial, result, problem, done = std::move(done), failed = std::move(failed)]() mutable {
            if (!end(slot, serial)) return;
            if (result)
              done(std::move(*result));
            else
              failed(problem);
          },
          Qt::QueuedConnection);
    });
  }

  void cancel(const QString& slot);
  bool idle() const { return m_stops.empty(); }

 private:
  quint64 begin(const QString& slot);
  bool end(const QString& slot, quint64 serial);  // false: stale

  QThreadPool m_pool;
  QHash<QString, quint64> m_latest;
  std::map<quint64, std::stop_source> m_stops;
  quint64 m_serial = 0;
};

}  // namespace qb::views
