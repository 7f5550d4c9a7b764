#include <QCommandLinkButton>
#include <QLabel>
#include <QPushButton>
#include <QtTest/QtTest>

#include "views/Theme.h"
#include "views/pages/WelcomePage.h"

using namespace qb::views;

class TestWelcomePage : public QObject {
  Q_OBJECT
 private Q_SLOTS:
  // Under either theme, whichever it was made under, every text differs from what is behind it as much as reading needs.
  void it_follows_the_theme_while_it_is_shown() {
    Theme theme;
    theme.choose(ThemeChoice::Light);
    WelcomePage page;
    page.setRecent({"/models/a/very/long/folder/that/ends/in/SmolLM2-135M", "/home/me/recipe.yaml"});
    page.resize(700, 620);
    page.show();
    QVERIFY(QTest::qWaitForWindowExposed(&page));
    const auto contrast = [](QWidget* widget) {
      const QImage image = widget->grab().toImage();
      double low = 1, high = 0;
      for (int x = 0; x < image.width(); ++x)
        for (int y = 0; y < image.height(); ++y) {
          const double light = image.pixelColor(x, y).lightnessF();
          low = std::min(low, light);
          high = std::max(high, light);
        }
      return high - low;
    };
    for (const ThemeChoice choice : {ThemeChoice::Light, ThemeChoice::Dark, ThemeChoice::Light}) {
      theme.choose(choice);
      QTest::qWait(30);
      const bool dark = choice == ThemeChoice::Dark;
      QCOMPARE(page.grab().toImage().pixelColor(3, 3).lightness() < 128, dark);
      int texts = 0;
      for (QWidget* each : page.findChildren<QWidget*>()) {
        const bool button = qobject_cast<QPushButton*>(each) != nullptr, label = qobject_cast<QLabel*>(each) && each->isVisible();
        if (!button && !label) continue;
        ++texts;
        QVERIFY2(contrast(each) > 0.4, each->metaObject()->className());
        // Light text on dark, dark text on light: what is most of the picture is the ground.
        const QImage image = each->grab().toImage();
        double sum = 0;
        for (int x = 0; x < image.width(); ++x)
          for (int y = 0; y < image.height(); ++y) sum += image.pixelColor(x, y).lightnessF();
        QCOMPARE(sum / image.width() / image.height() < 0.5, dark);
      }
      QVERIFY(texts >= 8);
    }
  }

  void a_recent_path_is_whole_in_its_tip_and_is_chosen() {
    WelcomePage page;
    const QString path = "/models/SmolLM2";
    page.setRecent({path});
    QSignalSpy chosen(&page, &WelcomePage::recentRequested);
    for (QPushButton* button : page.findChildren<QPushButton*>())
      if (button->toolTip() == path) button->click();
    QCOMPARE(chosen.size(), 1);
    QCOMPARE(chosen[0][0].toString(), path);
  }
};

QTEST_MAIN(TestWelcomePage)
#include "test_welcome_page.moc"
