#include "views/pages/BitsMenu.h"

#include <QCoreApplication>
#include <QMenu>

#include "views/models/LinearErrors.h"

namespace qb::views {

void addBitsMenu(QMenu* menu, const LinearKey& linear, const std::function<void(const LinearKey& linear, int bits)>& give) {
  if (!linear.isValid() || !give) return;
  const auto tr = [](const char* text) { return QCoreApplication::translate("BitsMenu", text); };
  menu->addSection(linearTitle(linear));
  menu->addAction(tr("Give this linear &8 bits in the recipe"), menu, [give, linear] { give(linear, 8); });
  QMenu* others = menu->addMenu(tr("&Other bits in the recipe"));
  for (const int bits : {2, 3, 4, 5, 6}) others->addAction(tr("%1 bits").arg(bits), menu, [give, linear, bits] { give(linear, bits); });
  others->addSeparator();
  others->addAction(tr("keep in float"), menu, [give, linear] { give(linear, 0); });
}

}  // namespace qb::views
