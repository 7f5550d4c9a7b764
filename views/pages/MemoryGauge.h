#pragma once
#include <QWidget>

namespace qb::views {

// Resident memory of the program against the machine's, once a second.
class MemoryGauge : public QWidget {
  Q_OBJECT
 public:
  explicit MemoryGauge(QWidget* parent = nullptr);
  void setTotal(qint64 bytes);
  QSize sizeHint() const override;

 protected:
  void paintEvent(QPaintEvent* event) override;

 private:
  void measure();
  qint64 m_total = 0, m_now = 0, m_peak = 0;
};

}  // namespace qb::views
