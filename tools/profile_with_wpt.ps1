<#
.SYNOPSIS
Records a CPU trace of the whole system (ETW) while the EVM replays a range of blocks.

.DESCRIPTION
Starts the Windows Performance Recorder with its built-in profile CPU, runs

    evm -b BeginBlock -e EndBlock --datadir DataDir

and saves the trace as an .etl file for Windows Performance Analyzer (WPA). Compared with cprof this
also sees the kernel, other processes, and who woke whom; it needs administrator rights, and WPA to
look at it.

The recording has a name of its own, and whatever goes wrong it is cancelled: an error, Ctrl-C, a
disk that fills up. Recordings of others are never touched. If the program fails, the trace is kept
(it shows the run up to there) and the program's exit code is passed on; if the program could not be
started, there is no trace.

Exit code: the program's, if that is not 0; 1 if the recorder or the exporter failed; 2 if something
was missing or wrong before anything was started.

For Windows PowerShell 5.1 and PowerShell 7. Not run here, where there is no Windows: written from
public documentation and examples, and checked as text by tests/tools/test_wpa.py.

.PARAMETER BeginBlock
First block to replay.

.PARAMETER EndBlock
Last block to replay.

.PARAMETER Evm
The program. Default: evm.exe in build\ beside tools\, then in the current folder, then in PATH.

.PARAMETER DataDir
Folder of the chain (evm gen makes it). Default: data.

.PARAMETER Output
The trace, FILE.etl; it must not exist yet. Default: evm-BEGIN-END-TIME.etl in the current folder.

.PARAMETER Threads
Worker threads. Default: the program's, one for each core.

.PARAMETER Detail
Verbose (default) records call stacks of samples and of context switches. Light makes smaller files;
see first that "wpr -profiledetails CPU.Light" lists SampledProfile among the System Stacks.

.PARAMETER WpaProfile
A .wpaProfile with the table CPU Usage (Sampled). If it is given, wpaexporter writes the table as
CSV after the recording, without the GUI.

.PARAMETER MinFreeGB
Refuse to start with less free space than this where the trace goes. Default: 4.

.EXAMPLE
.\tools\profile_with_wpt.ps1 -BeginBlock 1000 -EndBlock 2000

.EXAMPLE
.\tools\profile_with_wpt.ps1 -BeginBlock 1000 -EndBlock 2000 -Evm C:\evm\evm.exe -DataDir D:\chain `
    -Output D:\traces\run.etl -Threads 4 -WpaProfile .\ExportCPUUsageSampled.wpaProfile

.LINK
https://learn.microsoft.com/windows-hardware/test/wpt/wpr-command-line-options

.LINK
https://learn.microsoft.com/windows-hardware/test/wpt/exporter
#>
[CmdletBinding()]
param(
    [Parameter(Mandatory = $true)] [long] $BeginBlock,
    [Parameter(Mandatory = $true)] [long] $EndBlock,
    [string] $Evm = '',
    [string] $DataDir = 'data',
    [string] $Output = '',
    [ValidateRange(0, 256)] [int] $Threads = 0,
    [ValidateSet('Verbose', 'Light')] [string] $Detail = 'Verbose',
    [string] $WpaProfile = '',
    [ValidateRange(0, 100000)] [double] $MinFreeGB = 4
)

Set-StrictMode -Version 2.0
$ErrorActionPreference = 'Stop'

# What some of WPR's exit codes mean. They are HRESULTs.
$WprErrors = @{
    '0xc5583001' = 'another recording is running: see "wpr -status", end it with ' +
                   '"wpr -stop FILE" or "wpr -cancel"'
    '0xc5585011' = 'the right to profile the system is missing: run as administrator; a policy ' +
                   '("Profile system performance") may forbid it even then'
    '0x80010106' = 'a known fault of some versions: install a newer Windows Performance Toolkit'
}
$LowestFreeGB = 1       # less than this while recording, and it is cancelled

# An exception that carries the exit code.
function New-Failure([int] $Code, [string] $Message) {
    $failure = New-Object System.InvalidOperationException($Message)
    $failure.Data['ExitCode'] = $Code
    return $failure
}

function Write-Step([string] $Text) {
    Write-Host $Text
}

function Write-Problem([string] $Text) {
    [Console]::Error.WriteLine('profile_with_wpt: ' + $Text)
}

function Test-OnWindows {
    return [Environment]::OSVersion.Platform -eq [PlatformID]::Win32NT
}

function Test-Elevated {
    $identity = [Security.Principal.WindowsIdentity]::GetCurrent()
    $principal = New-Object Security.Principal.WindowsPrincipal($identity)
    return $principal.IsInRole([Security.Principal.WindowsBuiltInRole]::Administrator)
}

# Absolute, also for files that do not exist yet. .NET has a current folder of its own.
function Get-FullPath([string] $Path) {
    return $ExecutionContext.SessionState.Path.GetUnresolvedProviderPathFromPSPath($Path)
}

# A tool in PATH or where the Windows Performance Toolkit installs it; '' if there is none.
function Find-Tool([string] $Name) {
    $found = @(Get-Command -Name $Name -CommandType Application -ErrorAction SilentlyContinue)
    if ($found.Count -gt 0) { return $found[0].Path }
    foreach ($folder in @(${env:ProgramFiles(x86)}, $env:ProgramFiles)) {
        foreach ($kit in @('10', '8.1')) {
            if (-not $folder) { continue }
            $path = [IO.Path]::Combine($folder, 'Windows Kits', $kit,
                'Windows Performance Toolkit', $Name)
            if ([IO.File]::Exists($path)) { return $path }
        }
    }
    return ''
}

# GB free where a file is, or -1 if that cannot be told (a network share).
function Get-FreeGB([string] $Path) {
    try {
        $drive = New-Object System.IO.DriveInfo([IO.Path]::GetPathRoot($Path))
        return $drive.AvailableFreeSpace / 1gb
    } catch {
        return -1
    }
}

# One command line out of arguments, by the rules of CommandLineToArgvW: backslashes are doubled
# before a quote, and nowhere else. (Windows PowerShell 5.1 has no ProcessStartInfo.ArgumentList.)
function ConvertTo-CommandLine([string[]] $Arguments) {
    $quoted = foreach ($argument in $Arguments) {
        if ($argument -ne '' -and $argument -notmatch '[\s"]') {
            $argument
        } else {
            '"' + (($argument -replace '(\\*)"', '$1$1\"') -replace '(\\+)$', '$1$1') + '"'
        }
    }
    return @($quoted) -join ' '
}

function New-StartInfo([string] $Path, [string[]] $Arguments) {
    $info = New-Object System.Diagnostics.ProcessStartInfo
    $info.FileName = $Path
    $info.Arguments = ConvertTo-CommandLine $Arguments
    $info.UseShellExecute = $false
    $info.WorkingDirectory = (Get-Location -PSProvider FileSystem).ProviderPath
    return $info
}

# Runs a tool to its end. It does not get our console, so that Ctrl-C does not end it half way: a
# recording that is being saved or cancelled shall be that. .NET and not "&", because to Windows
# PowerShell 5.1 a line on stderr would be an error, and because this also works after Ctrl-C.
function Invoke-Tool([string] $Path, [string[]] $Arguments) {
    $info = New-StartInfo $Path $Arguments
    $info.CreateNoWindow = $true
    $info.RedirectStandardOutput = $true
    $info.RedirectStandardError = $true
    $process = [System.Diagnostics.Process]::Start($info)
    $errors = $process.StandardError.ReadToEndAsync()
    $text = $process.StandardOutput.ReadToEnd() + $errors.Result
    $process.WaitForExit()
    return New-Object PSObject -Property @{ ExitCode = $process.ExitCode; Text = $text.Trim() }
}

function Get-WprError($Result) {
    $code = '0x{0:x8}' -f $Result.ExitCode
    $known = ''
    if ($WprErrors.ContainsKey($code)) { $known = ': ' + $WprErrors[$code] }
    return $code + $known + [Environment]::NewLine + $Result.Text
}

# Everything that can be found wrong before anything is started.
function Get-Plan {
    if ($BeginBlock -lt 0 -or $EndBlock -lt $BeginBlock) {
        throw (New-Failure 2 'EndBlock must not be below BeginBlock, and neither below 0.')
    }
    if (-not (Test-OnWindows)) { throw (New-Failure 2 'ETW and WPR are parts of Windows.') }

    $program = ''
    if ($Evm) {
        $program = Get-FullPath $Evm
    } else {
        $near = [IO.Path]::Combine((Split-Path -Parent $PSScriptRoot), 'build', 'evm.exe')
        foreach ($path in @($near, (Get-FullPath 'evm.exe'), (Find-Tool 'evm.exe'))) {
            if (-not $program -and $path -and [IO.File]::Exists($path)) { $program = $path }
        }
        if (-not $program) { throw (New-Failure 2 'There is no evm.exe; give its path with -Evm.') }
    }
    if (-not [IO.File]::Exists($program)) { throw (New-Failure 2 "There is no program $program.") }
    $data = Get-FullPath $DataDir
    if (-not [IO.Directory]::Exists($data)) {
        throw (New-Failure 2 "There is no folder $data; evm gen makes a chain.")
    }

    $name = $Output
    if (-not $name) {
        $name = 'evm-{0}-{1}-{2:yyyyMMdd-HHmmss}.etl' -f $BeginBlock, $EndBlock, (Get-Date)
    }
    $trace = Get-FullPath $name
    if ([IO.Path]::GetExtension($trace) -ne '.etl') {
        throw (New-Failure 2 "The trace must be called something.etl, not $trace.")
    }
    if ($trace.Length -gt 200) {
        throw (New-Failure 2 "WPR cannot write to paths as long as $trace; give another -Output.")
    }
    $folder = [IO.Path]::GetDirectoryName($trace)
    if (-not [IO.Directory]::Exists($folder)) {
        throw (New-Failure 2 "There is no folder $folder.")
    }
    if ([IO.File]::Exists($trace) -or [IO.Directory]::Exists($trace)) {
        throw (New-Failure 2 "$trace exists already; remove it or choose another -Output.")
    }
    $free = Get-FreeGB $trace
    if ($free -ge 0 -and $free -lt $MinFreeGB) {
        throw (New-Failure 2 (('Only {0:f1} GB are free where {1} would go; {2} are wanted ' +
                    '(-MinFreeGB).') -f $free, $trace, $MinFreeGB))
    }

    $exporter = ''
    $table = ''
    if ($WpaProfile) {
        $table = Get-FullPath $WpaProfile
        if (-not [IO.File]::Exists($table)) {
            throw (New-Failure 2 "There is no WPA profile $table.")
        }
        $exporter = Find-Tool 'wpaexporter.exe'
        if (-not $exporter) {
            throw (New-Failure 2 ('wpaexporter.exe was not found. It comes with the Windows ' +
                    'Performance Toolkit, a part of the Windows ADK and of the Windows SDK.'))
        }
    }

    $wpr = Find-Tool 'wpr.exe'
    if (-not $wpr) {
        throw (New-Failure 2 ('wpr.exe was not found. Windows 10 and later have it in System32; ' +
                'otherwise install the Windows Performance Toolkit, a part of the Windows ADK: ' +
                'https://learn.microsoft.com/windows-hardware/get-started/adk-install'))
    }
    if (-not (Test-Elevated)) {
        throw (New-Failure 2 ('Recording needs administrator rights: open PowerShell with ' +
                '"Run as administrator" and run this again.'))
    }
    # By its text: the exit code is not documented. Where Windows does not speak English, the exit
    # code of wpr -start will tell.
    $status = (Invoke-Tool $wpr @('-status')).Text
    if ($status -notmatch 'not recording' -and
        $status -match 'recording is in progress|is recording') {
        throw (New-Failure 2 ('A recording is running already. It was left alone: save it with ' +
                '"wpr -stop FILE.etl" or drop it with "wpr -cancel".' +
                [Environment]::NewLine + $status))
    }

    $arguments = @('-b', "$BeginBlock", '-e', "$EndBlock", '--datadir', $data)
    if ($Threads -gt 0) { $arguments += @('--threads', "$Threads") }
    return New-Object PSObject -Property @{
        Wpr = $wpr; Program = $program; Arguments = $arguments; Trace = $trace
        Scratch = "$trace.$PID.tmp"; Instance = "cprof-$PID"; Exporter = $exporter; Table = $table
    }
}

# Waits in small steps: Ctrl-C is noticed between them.
function Wait-Program($Process, [string] $Trace) {
    while (-not $Process.WaitForExit(500)) {
        $free = Get-FreeGB $Trace
        if ($free -ge 0 -and $free -lt $LowestFreeGB) {
            throw (New-Failure 1 "Less than $LowestFreeGB GB are free: the program was ended.")
        }
    }
}

# Records the run; returns the program's exit code.
function Invoke-Recording($Plan) {
    $recording = $false     # perhaps
    $began = $false         # for certain
    $process = $null
    try {
        [void] [IO.Directory]::CreateDirectory($Plan.Scratch)
        # Set before, because Ctrl-C may come as soon as it records. Cancelling what has not started
        # does nothing.
        $recording = $true
        $started = Invoke-Tool $Plan.Wpr @('-start', "CPU.$($Detail.ToLowerInvariant())",
            '-filemode', '-recordtempto', $Plan.Scratch, '-instancename', $Plan.Instance)
        if ($started.ExitCode -ne 0) {
            throw (New-Failure 1 ('wpr -start failed with ' + (Get-WprError $started)))
        }
        $began = $true
        Write-Step "Recording. $($Plan.Program) $($Plan.Arguments -join ' ')"
        $info = New-StartInfo $Plan.Program $Plan.Arguments
        $process = [System.Diagnostics.Process]::Start($info)
        Wait-Program $process $Plan.Trace
        $code = $process.ExitCode
        Write-Step "The program ended with $code. Saving the trace; this may take minutes."
        $saved = Invoke-Tool $Plan.Wpr @('-stop', $Plan.Trace,
            "evm, blocks $BeginBlock to $EndBlock", '-instancename', $Plan.Instance)
        if ($saved.ExitCode -ne 0) {
            throw (New-Failure 1 ('wpr -stop failed with ' + (Get-WprError $saved)))
        }
        $recording = $false
        if (-not [IO.File]::Exists($Plan.Trace)) {
            throw (New-Failure 1 ("wpr -stop succeeded, but there is no $($Plan.Trace)." +
                    [Environment]::NewLine + $saved.Text))
        }
        return $code
    } finally {
        if ($null -ne $process -and -not $process.HasExited) {
            $process.Kill()
            $process.WaitForExit()
        }
        if ($recording) {
            $cancelled = Invoke-Tool $Plan.Wpr @('-cancel', '-instancename', $Plan.Instance)
            if ($cancelled.ExitCode -eq 0) {
                Write-Problem 'the recording was cancelled; no trace was saved.'
            } elseif ($began) {
                Write-Problem ('the recording may still be running; cancel it: ' +
                    "wpr -cancel -instancename $($Plan.Instance)")
            }
        }
        if ([IO.Directory]::Exists($Plan.Scratch)) {
            try {
                [IO.Directory]::Delete($Plan.Scratch, $true)
            } catch {
                Write-Problem "could not remove $($Plan.Scratch)."
            }
        }
    }
}

# The table as CSV without the GUI; returns the files.
function Export-Table($Plan) {
    $folder = "$($Plan.Trace)-csv"
    [void] [IO.Directory]::CreateDirectory($folder)
    Write-Step 'Exporting the table; with symbols this may take minutes.'
    $result = Invoke-Tool $Plan.Exporter @('-i', $Plan.Trace, '-profile', $Plan.Table,
        '-outputfolder', $folder, '-symbols')
    # It may end with 0 and have written nothing.
    $files = @([IO.Directory]::GetFiles($folder, '*.csv'))
    if ($result.ExitCode -ne 0 -or $files.Count -eq 0) {
        throw (New-Failure 1 ("wpaexporter wrote $($files.Count) tables and ended with " +
                "$($result.ExitCode); the trace $($Plan.Trace) is kept." +
                [Environment]::NewLine + $result.Text))
    }
    return $files
}

function Write-NextStep($Plan, [string[]] $Tables) {
    $symbols = [IO.Path]::GetDirectoryName($Plan.Program) +
        ';srv*C:\symbols*https://msdl.microsoft.com/download/symbols'
    $process = '^' + [regex]::Escape([IO.Path]::GetFileName($Plan.Program))
    Write-Step ''
    Write-Step "The trace is $($Plan.Trace)"
    Write-Step ''
    if (-not $env:_NT_SYMBOL_PATH) {
        Write-Step 'Names: WPA reads PDB files (evm.exe needs its evm.pdb) that are on this path:'
        Write-Step "    `$env:_NT_SYMBOL_PATH = '$symbols'"
        Write-Step ''
    }
    $csv = 'cpu.csv'
    if ($Tables.Count -gt 0) {
        $csv = $Tables[0]
        $Tables | ForEach-Object { Write-Step "Exported: $_" }
    } else {
        Write-Step 'To look at it, and to copy it as text:'
        Write-Step "    wpa '$($Plan.Trace)'"
        Write-Step '    Trace, Load Symbols'
        Write-Step '    Graph Explorer, Computation, CPU Usage (Sampled): show it as a table'
        Write-Step '    Columns: Process, Thread ID, Stack | Count, Weight (in view) (ms)'
        Write-Step '        (| is the golden bar: rows are grouped by what is left of it)'
        Write-Step '    Expand all rows of the process, select them all, Ctrl+C; then here:'
        Write-Step '    Get-Clipboard | Set-Content -Encoding UTF8 cpu.csv'
        Write-Step 'Or every sample, without the GUI:'
        Write-Step "    wpaexporter -i '$($Plan.Trace)' -profile CPU.wpaProfile -symbols"
        Write-Step '    The profile: in WPA move those five columns right of the golden bar, so'
        Write-Step '    that nothing is grouped, and choose Profiles, Export. Or take that of'
        Write-Step '    UIforETW, which has no weights (below: --countname samples), no idle time:'
        Write-Step ('    https://github.com/google/UIforETW/blob/main/bin/' +
            'ExportCPUUsageSampled.wpaProfile')
    }
    Write-Step ''
    Write-Step 'Then:'
    Write-Step "    python '$(Join-Path $PSScriptRoot 'wpa2folded.py')' '$csv' ``"
    Write-Step "        --process '$process' -o evm.folded"
    Write-Step "    python '$(Join-Path $PSScriptRoot 'flamegraph.py')' evm.folded ``"
    Write-Step '        --countname us -o evm.svg'
}

function Invoke-Main {
    try {
        $plan = Get-Plan
        $code = Invoke-Recording $plan
        $tables = @()
        if ($plan.Exporter) { $tables = @(Export-Table $plan) }
        Write-NextStep $plan $tables
        if ($code -ne 0) {
            Write-Problem "the program failed with $code; the trace shows the run up to there."
        }
        $script:ExitCode = $code
    } catch {
        Write-Problem $_.Exception.Message
        $script:ExitCode = 1
        if ($_.Exception.Data.Contains('ExitCode')) {
            $script:ExitCode = $_.Exception.Data['ExitCode']
        }
    }
}

$ExitCode = 1
Invoke-Main
exit $ExitCode
