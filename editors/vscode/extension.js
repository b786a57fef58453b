// Starts `peftc lsp` for recipes. All that is said of a recipe, the program says.
const vscode = require('vscode');
const { LanguageClient } = require('vscode-languageclient/node');

let client;

async function start() {
  const command = vscode.workspace.getConfiguration('peftc').get('path');
  client = new LanguageClient(
    'peftc',
    'peftc',
    { command, args: ['lsp'] },
    { documentSelector: [{ scheme: 'file', language: 'peft' }] },
  );
  try {
    await client.start();
  } catch (error) {
    client = undefined;
    vscode.window.showErrorMessage(
      `peftc: \`${command} lsp\` does not start (${error.message}). The setting \`peftc.path\` says where the program is.`,
    );
  }
}

async function stop() {
  const running = client;
  client = undefined;
  if (running) await running.stop();
}

exports.activate = async (context) => {
  context.subscriptions.push(
    vscode.commands.registerCommand('peftc.restart', async () => {
      await stop();
      await start();
    }),
  );
  await start();
};

exports.deactivate = stop;
