#pragma once
#include <QDialog>

#include "views/plots/Plot.h"

class QComboBox;
class QDialogButtonBox;
class QDoubleSpinBox;
class QLabel;
class QSpinBox;
class QTimer;

namespace qb::views {

// Size, look and kind of a picture before it is exported, with a preview; remembers what was chosen last.
class PictureDialog : public QDialog {
  Q_OBJECT
 public:
  explicit PictureDialog(Plot* plot, QWidget* parent = nullptr);
  PictureSettings settings() const;
  void setSettings(const PictureSettings& settings);

 protected:
  void accept() override;  // asks for the file, writes it

 private:
  void unitChosen();
  void show(const PictureSettings& settings);
  void update();
  void preview();
  void write(const QString& path);

  Plot* m_plot;
  QComboBox *m_format, *m_unit, *m_look;
  QDoubleSpinBox *m_width, *m_height;
  QSpinBox* m_dpi;
  QLabel *m_result, *m_preview;
  QDialogButtonBox* m_buttons;
  QTimer* m_timer;
  bool m_pixels = false;  // the unit of what stands in the fields
};

}  // namespace qb::views
