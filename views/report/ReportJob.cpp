#include "views/report/ReportJob.h"

#include <QCoreApplication>
#include <QFileDialog>
#include <QProcess>
#include <utility>

namespace qb::views {

void ReportJob::ask(QWidget* parent, const QString& workspace, const QStringList& runs, const QString& name, Told told) {
  const QStringList kinds{tr("Web page, in one file (*.html)"), tr("PDF (*.pdf)")};
  auto* dialog = new QFileDialog(parent, runs.size() == 1 ? tr("Write a report of one run") : tr("Write a report of %1 runs").arg(runs.size()), {}, kinds.join(QStringLiteral(";;")));
  dialog->setAcceptMode(QFileDialog::AcceptSave);
  dialog->setDefaultSuffix(QStringLiteral("html"));
  dialog->selectFile(QString(name).replace(QLatin1Char('/'), QLatin1Char('-')) + QStringLiteral(".html"));
  dialog->setAttribute(Qt::WA_DeleteOnClose);
  connect(dialog, &QFileDialog::filterSelected, dialog, [dialog](const QString& filter) { dialog->setDefaultSuffix(filter.contains(QLatin1String("*.pdf")) ? QStringLiteral("pdf") : QStringLiteral("html")); });
  connect(dialog, &QFileDialog::fileSelected, parent, [=](const QString& path) { new ReportJob(path, workspace, runs, told, parent); });
  dialog->open();
}

ReportJob::ReportJob(const QString& path, const QString& workspace, const QStringList& runs, Told told, QObject* parent) : QObject(parent), m_process(new QProcess(this)) {
  QProcessEnvironment environment = QProcessEnvironment::systemEnvironment();
  environment.insert(QStringLiteral("QT_QPA_PLATFORM"), QStringLiteral("offscreen"));
  m_process->setProcessEnvironment(environment);
  QStringList arguments{QStringLiteral("--report"), path, QStringLiteral("--workspace"), workspace};
  for (const QString& run : runs) arguments << QStringLiteral("--run") << run;
  const auto end = [this, path, told = std::move(told)](const QString& problem) {
    told(path, problem);
    deleteLater();
  };
  connect(m_process, &QProcess::finished, this, [this, end](int code, QProcess::ExitStatus status) {
    if (status == QProcess::NormalExit && code == 0) return end({});
    const QString said = QString::fromUtf8(m_process->readAllStandardError()).trimmed();
    end(said.isEmpty() ? tr("The report's process ended with code %1").arg(code) : said.section(QLatin1Char('\n'), -1));
  });
  connect(m_process, &QProcess::errorOccurred, this, [this, end](QProcess::ProcessError error) {
    if (error == QProcess::FailedToStart) end(tr("%1 cannot be started: %2").arg(m_process->program(), m_process->errorString()));
  });
  const QString named = qEnvironmentVariable("QBENCH_WORKBENCH");
  m_process->start(named.isEmpty() ? QCoreApplication::applicationFilePath() : named, arguments);
}

}  // namespace qb::views
